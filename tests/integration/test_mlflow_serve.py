"""`/invocations` beside MLflow's own `models serve` of the same bundle: the same requests, the same statuses, the same numbers."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.mlmodel import mlflow_files
from edgefleet.digests import sha256_hex
from edgefleet.ports import free_port
from tests.integration import foreign
from tests.integration.http_clients import REQUESTS
from tests.integration.test_http_foreign import TRITONCLIENT
from tests.unit.device_agent.bundles import numbers, regression_graph, training_rows, write_bundle
from tests.unit.device_agent.http_world import rows, world

pytestmark = [pytest.mark.foreign, pytest.mark.timeout(1800)]
WEIGHTS = np.array([0.5, -1.0, 2.0, 0.25, 3.0], np.float32)
TAKEN = ("split", "records", "instances", "inputs", "csv", "charset")
REFUSED = ("unnamed", "two keys", "no key", "bare list")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("foreign")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    """One value a row, with the files that make it an MLflow model."""
    graph, inputs = regression_graph(WEIGHTS), numbers(missing=True)
    made = write_bundle(folder / "bundle", graph, training_rows()[0], inputs, [])
    for name, content in mlflow_files("onnx-fp32.onnx", sha256_hex(graph), "p" * 64, inputs).items():
        (made.folder / name).write_bytes(content)
    return made.folder


@pytest.fixture(scope="module")
def served_by_mlflow(folder: Path, bundle: Path) -> Iterator[int]:
    python, port = foreign.environment(folder, *foreign.MLFLOW), free_port()
    command = [str(python), "-m", "mlflow", "models", "serve", "-m", str(bundle), "-h", "127.0.0.1", "-p", str(port)]
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    # The server starts uvicorn by name: its environment's programs come first.
    env = {**kept, "MLFLOW_DISABLE_TELEMETRY": "true", "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--env-manager", "local"], stdout=log, stderr=log, cwd=folder, env=env, start_new_session=True
        )
    try:
        foreign.wait_for(f"http://127.0.0.1:{port}/ping", process, folder / "serve.log")
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # its own session: the server and its workers, nobody else
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=60)


def asked(python: Path, port: int, x: Any) -> dict[str, Any]:
    said = json.loads(foreign.run(python, REQUESTS, str(port), json.dumps(x.tolist())))["said"]
    assert isinstance(said, dict)
    return said


def test_every_form_is_answered_as_mlflow_s_own_server_answers_it(folder: Path, bundle: Path, served_by_mlflow: int) -> None:
    python, x = foreign.environment(folder, *TRITONCLIENT), rows(7)

    theirs = asked(python, served_by_mlflow, x)
    with world(bundle) as one:
        ours = asked(python, one.port, x)
        assert one.balanced()

    assert {form: ours[form][0] for form in (*TAKEN, *REFUSED, "missing")} == {
        form: theirs[form][0] for form in (*TAKEN, *REFUSED, "missing")
    }
    for form in TAKEN:
        numbers_ = [[row["margin"] for row in json.loads(said[form][2])["predictions"]] for said in (ours, theirs)]
        assert numbers_[0] == pytest.approx((x.astype(float) @ WEIGHTS.astype(float)).tolist(), abs=1e-5), form
        assert numbers_[0] == pytest.approx(np.ravel(numbers_[1]).tolist(), abs=1e-5), form
    for form in REFUSED:
        assert json.loads(ours[form][2])["error_code"] == json.loads(theirs[form][2])["error_code"], form
