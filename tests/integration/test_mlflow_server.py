"""Runs and packages in a real MLflow server of the pinned version, read back by MLflow itself in an environment without edgefleet."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.mlmodel import mlflow_files
from edgefleet.digests import sha256_file, sha256_hex
from edgefleet.manifest import Input
from edgefleet.package import FORMAT_VERSION, PackageIndex, write_package
from edgefleet.registry import NOTE_NAME, register
from tests.integration import foreign
from tests.integration.mlflow_models import DOWNLOAD, LOAD, graph
from trainer.runs import Run
from trainer.settings import Tracking
from trainer.tracking import mirror

pytestmark = [pytest.mark.foreign, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign.environment(tmp_path_factory.mktemp("foreign"), *foreign.MLFLOW)


@pytest.fixture(scope="module")
def server(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with foreign.mlflow_server(python, tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture
def client_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `mirror` sets before the import stays inside the test."""
    for name in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"):
        monkeypatch.setenv(name, "true")


def package(folder: Path, weight: float) -> Path:
    """A small model package; the weight makes its digest."""
    index = PackageIndex(
        format_version=FORMAT_VERSION,
        project="pump",
        task="classification",
        model="model.skops",
        family="forest",
        margin_kind="mean leaf probability",
        classes=["bad", "good"],
        shape=[1],
        overrides=[],
        files={},
    )
    return write_package(folder, index, {"model.skops": np.float64(weight).tobytes(), "schema.json": b"[]"}).folder


def finished_run(folder: Path, weight: float = 1.0) -> Run:
    """A run as `edgefleet train` leaves it."""
    run = Run(folder)
    run.record |= {
        "project": "pump",
        "question": "Does the pump fail within a week?",
        "settings": {
            "goal": {"metric": "accuracy", "minimum": 0.8},
            "search": {"candidates": ["forest"]},
            "data": {"odd key!": "x" * 9000},
        },
        "seed": 7,
        "data_digest": "d" * 64,
        "winner": "forest",
        "test": {"accuracy": {"value": 0.91, "low": 0.88, "high": 0.93, "n": 400}},
        "report": {"metric": "accuracy", "metrics": {"validation": {"accuracy": {"value": 0.9, "low": None, "high": 0.92, "n": 400}}}},
    }
    for step in range(1, 1501):  # more than one batch of MLflow's
        run.event("epoch", candidate="mlp", step=step, loss=1.0 / step)
    run.event("trial", candidate="forest", number=0, value=0.85, state="complete", parameters={"depth": 3})
    folder = package(run.folder / "forest" / "package", weight)
    run.record["package_digest"] = sha256_file(folder / "package.json")
    run.finish("packaged")
    return run


READ_RUN = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
run = client.get_run(sys.argv[2])
losses = client.get_metric_history(run.info.run_id, "epoch.mlp.loss")
print(json.dumps({
    "experiment": client.get_experiment(run.info.experiment_id).name, "name": run.info.run_name, "status": run.info.status,
    "params": dict(run.data.params), "metrics": dict(run.data.metrics), "tags": dict(run.data.tags),
    "losses": [(m.step, m.value) for m in losses],
    "files": [f.path for f in client.list_artifacts(run.info.run_id, "run")],
}))
"""


@pytest.mark.usefixtures("client_environment")
def test_a_mirrored_run_is_read_back_by_mlflow_with_parameters_metrics_tags_and_files(
    server: str, python: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = finished_run(tmp_path / "runs")

    assert mirror(run.folder, run.record, Tracking(mlflow=server), "pump") is None

    assert capfd.readouterr().out == "", "stdout belongs to --json"
    note = json.loads((run.folder / NOTE_NAME).read_bytes())
    read: dict[str, Any] = json.loads(foreign.run(python, READ_RUN, server, note["run_id"]))
    assert (read["experiment"], read["name"], read["status"]) == ("pump", run.id, "FINISHED")
    assert read["params"]["settings.goal.minimum"] == "0.8"
    assert read["params"]["seed"] == "7"
    assert len(read["params"]["settings.data.odd key_"]) == 6000
    assert read["metrics"]["test.accuracy"] == 0.91
    assert read["metrics"]["test.accuracy.low"] == 0.88
    assert read["metrics"]["validation.accuracy.high"] == 0.92
    assert "validation.accuracy.low" not in read["metrics"]
    assert read["metrics"]["trial.forest.value"] == 0.85
    assert read["losses"] == [[step, 1.0 / step] for step in range(1, 1501)]
    assert read["tags"]["edgefleet.data_digest"] == "d" * 64
    assert read["tags"]["mlflow.note.content"] == "Does the pump fail within a week?"
    assert {"run/run.json", "run/events.ndjson", "run/forest"} <= set(read["files"])


@pytest.mark.usefixtures("client_environment")
def test_promotion_moves_the_alias_champion_and_rollback_moves_it_back_to_the_same_version(
    server: str, python: Path, tmp_path: Path
) -> None:
    tracking = Tracking(mlflow=server, experiment="pumps")
    first, second = finished_run(tmp_path / "runs", 1.0), finished_run(tmp_path / "runs", 2.0)
    packages = [run.folder / "forest" / "package" for run in (first, second)]
    assert mirror(first.folder, first.record, tracking, "pump") is None  # the second run's mirror was away

    seen = []
    for folder in (packages[0], packages[1], packages[0]):
        register(folder, "pump-model", server)
        seen.append(json.loads(foreign.run(python, DOWNLOAD, server, "pump-model")))

    assert [entry["version"] for entry in seen] == ["1", "2", "1"]
    assert seen[0]["source"].endswith("/run/forest/package")
    for entry, folder in zip(seen, (packages[0], packages[1], packages[0]), strict=True):
        assert entry["digests"]["package.json"] == sha256_file(folder / "package.json")
        assert entry["digests"]["model.skops"] == sha256_file(folder / "model.skops")


@pytest.mark.usefixtures("client_environment")
def test_a_registered_bundle_is_loaded_by_its_alias_where_edgefleet_is_not_installed(server: str, python: Path, tmp_path: Path) -> None:
    content = graph("Add")
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "onnx.onnx").write_bytes(content)
    (bundle / "manifest.json").write_bytes(b"{}")
    for name, text in mlflow_files("onnx.onnx", sha256_hex(content), "p" * 64, [Input(name="a"), Input(name="b")]).items():
        (bundle / name).write_bytes(text)

    assert register(bundle, "pump-bundle", server) == "1"

    read = json.loads(foreign.run(python, LOAD, server, "pump-bundle", "a", "b"))
    assert read["answer"] == [2.0, 1.0, 4.0, -2.0]
    assert read["digest"] == "p" * 64


DELETE = """
import sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
client.delete_experiment(client.create_experiment("gone"))
"""


@pytest.mark.usefixtures("client_environment")
def test_a_deleted_experiment_leaves_one_sentence_and_the_run(server: str, python: Path, tmp_path: Path) -> None:
    foreign.run(python, DELETE, server)
    run = finished_run(tmp_path / "runs")

    sentence = mirror(run.folder, run.record, Tracking(mlflow=server, experiment="gone"), "pump")

    assert sentence is not None
    assert sentence.startswith(f"MLflow at {server} did not take it all (")
    assert "must be in the 'active' state" in sentence
    assert sentence.endswith(f"; the run is complete in {run.folder}")
    assert (run.folder / "run.json").is_file()
