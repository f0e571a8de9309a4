"""The Kubeflow export without kfp; that kfp loads it is proved in tests/integration."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgefleet.cli.export import export
from edgefleet.errors import ConfigError
from trainer import load_project
from trainer.kfp import _yaml, pipeline_ir

DIGITS = Path(__file__).parents[3] / "examples" / "digits"
IMAGE = f"registry.example.org/pumps@sha256:{'a' * 64}"


@pytest.mark.parametrize(
    "image", ["pumps", "pumps:1.0", "pumps:latest", "pumps@sha256:abc", f"pumps@sha256:{'A' * 64}", f"a b@sha256:{'a' * 64}"]
)
def test_an_image_that_is_not_pinned_by_digest_is_refused_with_the_reason(image: str) -> None:
    with pytest.raises(ConfigError, match="is not pinned: write NAME@sha256:DIGEST, because a tag can move"):
        pipeline_ir(load_project(DIGITS), image)


def test_the_command_writes_the_file_and_an_equal_project_gives_equal_text(tmp_path: Path) -> None:
    for name in ("one.yaml", "two.yaml"):
        result = CliRunner().invoke(export, ["kfp", str(DIGITS), "--image", IMAGE, "--output", str(tmp_path / name)])
        assert result.exit_code == 0, result.output

    assert (tmp_path / "one.yaml").read_bytes() == (tmp_path / "two.yaml").read_bytes()


def test_each_step_runs_a_command_that_exists(tmp_path: Path) -> None:
    text = pipeline_ir(load_project(DIGITS), IMAGE)

    from edgefleet.cli.main import COMMANDS

    first = re.findall(r'args:\n +- "([a-z]+)"', text)
    assert sorted(first) == ["convert", "data", "train"]
    assert set(first) <= set(COMMANDS)


@pytest.mark.parametrize(
    "value",
    [
        {"a": {"b": [1, 2.5, None, True], "empty": {}, "none": []}},
        {"list": [{"a": 1, "b": [{"c": "x"}]}, [1, [2]]]},
        {"odd": ["yes", "no", "1e3", "a: b", "# c", "'", '"', "\n", "\u00e9\u2192", "", " - "], "1": 1, "yes no": 2, "null": 3},
    ],
)
def test_what_is_written_is_read_back_equal_by_a_yaml_library(value: dict[str, Any]) -> None:
    yaml = importlib.import_module("yaml")  # comes with mlflow-skinny

    assert yaml.safe_load("\n".join(_yaml(value))) == value
