"""The lines of docs/scoring.md about HTTP do what the page says, when they are run as they stand."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefleet.manifest import Input
from tests.unit.device_agent.bundles import forest, forest_arrays, forest_graph, write_bundle
from tests.unit.device_agent.http_world import World, world

PAGE = Path(__file__).resolve().parents[3] / "docs" / "scoring.md"


@pytest.fixture(scope="module")
def press(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle that the page speaks of."""
    from edgefleet.package import npz_bytes

    names = {"vibration": "mm/s", "temperature": "", "load": "", "speed": ""}
    inputs = [Input(name=name, unit=unit) for name, unit in names.items()]
    inputs[0] = Input(name="vibration", unit="mm/s", low=0.0, high=60.0, range_policy="reject")
    inputs.append(Input(name="material", kind="category", categories=["steel", "brass"]))
    model, x = forest()
    x[:, 4] = x[:, 4] > 0
    explainer = ("treeshap", npz_bytes(forest_arrays(model)))
    folder = tmp_path_factory.mktemp("press")
    return write_bundle(folder, forest_graph(model), x, inputs, ["low", "mid", "high"], explainer, changes={"project": "press"}).folder


@pytest.fixture(scope="module")
def served(press: Path) -> Iterator[World]:
    with world(press) as one:
        yield one


def section() -> str:
    """What the page says about HTTP."""
    return PAGE.read_text().partition("\n## HTTP\n")[2].partition("\n## ")[0]


def blocks() -> list[str]:
    """The shell blocks of the HTTP section that ask the door."""
    found = re.findall(r"```sh\n(.*?)```", section(), re.DOTALL)
    return [block for block in found if "curl" in block and "https://" not in block]


@pytest.mark.parametrize("block", blocks(), ids=lambda block: re.sub(r"\W+", "-", block[8:60]))
def test_every_line_of_the_page_is_answered(served: World, tmp_path: Path, block: str) -> None:
    if shutil.which("curl") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("curl is not installed: apt-get install curl")
    script = block.replace("curl -s", "curl -sS --fail-with-body").replace(":8470", f":{served.port}")

    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, timeout=60, cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout
    assert "is not accepted" not in done.stdout


def test_the_page_s_words_about_refusals_and_outputs_are_those_of_the_door(served: World) -> None:
    text = section()
    row = {"name": "inputs", "datatype": "FP32", "shape": [1, 5], "data": [99, 1, 1, 1, 0]}

    refused = served.infer(row, path="press")

    assert json.dumps({"error": refused.json["error"]}) in text
    names = [output["name"] for output in served.ask("GET", "/v2/models/press").json["outputs"]]
    assert names == [name for name in re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) if name in names]


def test_the_page_s_limits_are_the_door_s() -> None:
    from device_agent.doors.http.settings import MIB, Limits
    from device_agent.doors.http.wire import MAX_HEADERS
    from device_agent.doors.oip.tensors import MAX_RANK

    limits, text = Limits(), section()
    for line in (
        f"| body, also when unpacked | {limits.body_bytes // MIB} MiB |",
        f"| bodies of all requests at once | {limits.bodies_bytes // MIB} MiB |",
        f"| values of one request | {limits.elements:,} |",
        f"| dimensions of a tensor | {MAX_RANK} |",
        f"| rows of one explanation | {limits.explained_rows} |",
        f"| request line and headers | {limits.head_bytes // 1024} KiB, {MAX_HEADERS} headers |",
        f"| arrival of a request | {limits.receive_s:g} s |",
        f"| scoring of one request | {limits.work_s:g} s |",
        f"| connections (and at most as many threads) | {limits.connections} |",
        f"| idle connection | {limits.idle_s:g} s |",
    ):
        assert line in text
