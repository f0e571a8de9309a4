"""The HTTP door before clients that others made, unmodified: Triton's, KServe's, MLServer's, requests, Prometheus' parser, schemathesis."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agent.scorer import Scorer
from tests.integration import foreign
from tests.integration.http_clients import KSERVE, PROMETHEUS, REQUESTS, TRITON
from tests.unit.device_agent.bundles import forest_bundle, numbers
from tests.unit.device_agent.http_world import World, matrix, rows, world

pytestmark = [pytest.mark.foreign, pytest.mark.timeout(1800)]

TRITONCLIENT = ("tritonclient[http]==2.73.0", "requests==2.34.2", "prometheus-client==0.26.0")
MLSERVER = ("mlserver==1.7.1", "onnxruntime==1.32.0")
KSERVE_CLIENT = ("kserve==0.21.0",)
SCHEMATHESIS = ("schemathesis==4.32.5",)
X = rows(7)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("foreign")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    return forest_bundle(folder / "bundle", numbers(missing=True)).folder


@pytest.fixture
def served(bundle: Path) -> Iterator[World]:
    with world(bundle) as one:
        yield one
        assert one.balanced()


def arguments(bundle: Path, port: int) -> list[str]:
    """Port, rows, and the answers that are right."""
    with Scorer.open(bundle) as scorer:
        right = scorer.score_batch(X)
    return [str(port), json.dumps(X.tolist()), json.dumps(right.label.tolist()), json.dumps(right.score.astype(float).tolist())]


def test_triton_s_client_gets_every_call_of_the_protocol_answered(folder: Path, bundle: Path, served: World) -> None:
    python = foreign.environment(folder, *TRITONCLIENT)

    said = json.loads(foreign.run(python, TRITON, *arguments(bundle, served.port)))

    assert said["trips"] == 44
    for text, words in zip(said["refused"], ("input 'f2': inf", "no model 'other'", "shape [7, 4]", "", ""), strict=True):
        assert text
        assert words in text


def test_kserve_s_client_gets_its_answers_and_the_text_of_errors(folder: Path, bundle: Path, served: World) -> None:
    python = foreign.environment(folder, *KSERVE_CLIENT)

    said = json.loads(foreign.run(python, KSERVE, *arguments(bundle, served.port)))

    assert said["trips"] == 26
    assert "shape [1, 4] is not the [n, 5]" in said["refused"]


@pytest.mark.parametrize("options", [["-s", "1"], ["-s", "16"], ["-s", "16", "-b"]], ids=" ".join)
def test_mlserver_infer_answers_every_line(folder: Path, bundle: Path, served: World, tmp_path: Path, options: list[str]) -> None:
    python = foreign.environment(folder, *MLSERVER)
    x = rows(200)
    lines = [json.dumps({"id": str(i), "inputs": [matrix(x[i : i + 1])]}) for i in range(200)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    with Scorer.open(bundle) as scorer:
        right = scorer.score_batch(x).label.tolist()
    command = [str(python.parent / "mlserver"), "infer", "-u", f"127.0.0.1:{served.port}", "-m", "tiny", *options]
    command += ["-i", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl")]

    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path, env=_without_ours())

    assert done.returncode == 0, done.stderr[-2000:]
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    # It writes the number of the line into the parameters, and lines in the order in which they were answered.
    found = {a["parameters"]["inference"]["index"] if "inference" in a.get("parameters", {}) else int(a["id"]): a for a in answers}
    assert len(found) == 200
    outputs = [{o["name"]: o["data"] for o in found[i]["outputs"]} for i in range(200)]
    assert [one["label"][0] for one in outputs] == right
    own = [sys.executable, "-m", "edgefleet", "agent", "score", "--bundle", str(bundle), "--format", "oip", str(tmp_path / "in.jsonl")]
    ours = subprocess.run(own, capture_output=True, text=True, timeout=240, env=os.environ | {"PYTHONPATH": str(ROOT)})
    said = [{o["name"]: o["data"] for o in json.loads(line)["outputs"]} for line in ours.stdout.splitlines()]
    assert [one["label"] for one in said] == [one["label"] for one in outputs]
    assert np.array([one["score"] for one in said], np.float32).tolist() == np.array([one["score"] for one in outputs], np.float32).tolist()


def test_invocations_answer_requests_as_the_table_of_mlflow_s_server_says(folder: Path, bundle: Path, served: World) -> None:
    python = foreign.environment(folder, *TRITONCLIENT)
    with Scorer.open(bundle) as scorer:
        right = scorer.score_batch(X).label.tolist()

    answered = json.loads(foreign.run(python, REQUESTS, str(served.port), json.dumps(X.tolist())))

    said = answered["said"]
    assert answered["ping"] == [200, 200]
    for form in ("split", "records", "instances", "inputs", "csv", "charset"):
        assert (said[form][0], [p["label"] for p in json.loads(said[form][2])["predictions"]]) == (200, right), form
    for wrong in ("unnamed", "two keys", "no key", "bare list", "unlabelled"):
        status, kind, text = said[wrong]
        assert (status, kind, json.loads(text)["error_code"]) == (400, "application/json", "BAD_REQUEST"), wrong
    assert (said["parquet"][0], said["parquet"][1].partition(";")[0]) == (415, "text/plain")
    assert (said["missing"][0], "NaN" in said["missing"][2]) == (200, False)


def test_prometheus_own_parser_reads_the_metrics(folder: Path, served: World) -> None:
    python = foreign.environment(folder, *TRITONCLIENT)
    served.infer(matrix(X))
    served.ask("POST", "/invocations", b"nonsense")

    families = json.loads(foreign.run(python, PROMETHEUS, str(served.port)))

    assert {name: found[0] for name, found in families.items()} == {
        "edgefleet_http_rows_offered": "counter",
        "edgefleet_http_rows_scored": "counter",
        "edgefleet_http_rows_shed": "counter",
        "edgefleet_http_rows_rejected": "counter",
        "edgefleet_http_requests": "counter",
        "edgefleet_http_request_seconds": "histogram",
        "edgefleet_model_info": "gauge",
        "process_resident_memory_bytes": "gauge",
        "process_cpu_seconds": "counter",
    }
    assert all(found[1] for found in families.values())
    assert families["edgefleet_http_rows_scored"][2] == [["edgefleet_http_rows_scored_total", {}, 7.0]]
    assert families["edgefleet_http_rows_rejected"][2] == [["edgefleet_http_rows_rejected_total", {"reason": "malformed"}, 1.0]]


def test_schemathesis_finds_no_server_error_and_nothing_that_the_document_does_not_say(folder: Path, served: World, tmp_path: Path) -> None:
    python = foreign.environment(folder, *SCHEMATHESIS)
    command = [str(python.parent / "schemathesis"), "run", f"http://127.0.0.1:{served.port}/openapi.json", "--checks", "all"]
    # A schema cannot say that data must fit shape and the model's inputs: most requests that look valid are rightly refused.
    command += ["--exclude-checks", "positive_data_acceptance", "--phases", "examples,coverage,fuzzing", "--max-examples", "20"]
    command += ["--seed", "1", "--workers", "1", "--no-color", "--request-timeout", "20"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path, env=_without_ours())

    assert done.returncode == 0, done.stdout[-6000:]
    assert [status for _, status in served.door.counts().requests if status >= 500] == []


def _without_ours() -> dict[str, Any]:
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
