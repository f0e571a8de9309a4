"""The mirror without a server: what it sends, and that trouble is one sentence. The real server is in tests/integration."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgefleet.errors import ConfigError
from trainer.settings import Tracking
from trainer.tracking import check_tracking, final_metrics, mirror, parameters, step_metrics


def test_without_a_url_nothing_happens(tmp_path: Path) -> None:
    assert mirror(tmp_path, {}, Tracking(), "pump") is None
    check_tracking(Tracking())


@pytest.mark.parametrize("url", ["file:///tmp/runs", "sqlite:///a.db", "localhost:5000", "http://", "databricks"])
def test_an_address_that_is_no_server_is_refused_before_the_training(url: str) -> None:
    with pytest.raises(ConfigError, match="is no server's address: write http://HOST:PORT"):
        check_tracking(Tracking(mlflow=url))


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD in the environment") as refused:
        check_tracking(Tracking(mlflow="https://anna:secret@mlflow.example.org"))

    assert "secret" not in str(refused.value)
    assert "https://mlflow.example.org" in str(refused.value)


def test_a_server_that_is_away_costs_one_sentence_and_seconds_not_minutes(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers there
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"

        # In a process of its own: the import of mlflow takes a second and changes the environment.
        program = (
            "import sys; from pathlib import Path; from trainer.settings import Tracking; from trainer.tracking import mirror\n"
            "print(mirror(Path(sys.argv[2]), {'id': 'r'}, Tracking(mlflow=sys.argv[1]), 'pump'))\n"
        )
        done = subprocess.run([sys.executable, "-c", program, url, str(tmp_path)], capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    (mirrored,) = done.stdout.splitlines()
    assert mirrored.startswith(f"MLflow at {url} did not take it all (")
    assert mirrored.endswith(f"; the run is complete in {tmp_path}")


def test_without_mlflow_installed_the_sentence_is_the_line_that_installs_it(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['mlflow'] = None; from pathlib import Path\n"
        "from trainer.settings import Tracking; from trainer.tracking import mirror\n"
        "print(mirror(Path(sys.argv[1]), {}, Tracking(mlflow='http://127.0.0.1:9'), 'pump'))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60)

    assert done.stdout.strip().endswith("is not installed, so nothing goes there: pip install 'edgefleet[tracking]'"), done.stderr


def test_settings_become_flat_parameters_with_names_that_mlflow_takes() -> None:
    record = {"settings": {"goal": {"minimum": 0.8, "costs": {}}, "data": {"a\u00e4\u2192b": [1, "x"]}}, "seed": 3, "report": {"no": 1}}

    assert parameters(record) == {
        "settings.goal.minimum": "0.8",
        "settings.goal.costs": "{}",
        "settings.data.a__b": '[1, "x"]',
        "seed": "3",
    }


def test_metrics_come_from_the_splits_and_the_candidates_with_their_intervals() -> None:
    measure = {"value": 0.9, "low": 0.8, "high": None, "n": 40}
    candidates = [{"name": "forest", "value": 0.7, "low": 0.6, "high": 0.75, "n": 40}, {"name": "broken", "value": None}]
    record = {"report": {"metric": "auc", "metrics": {"validation": {"auc": measure}}, "candidates": candidates}, "seconds": {"read": 2}}

    assert final_metrics(record) == {
        "validation.auc": 0.9,
        "validation.auc.low": 0.8,
        "validation.auc.n": 40.0,
        "candidate.forest.auc": 0.7,
        "candidate.forest.auc.low": 0.6,
        "candidate.forest.auc.high": 0.75,
        "candidate.forest.auc.n": 40.0,
        "seconds.read": 2.0,
    }
    assert final_metrics({}) == {}


def test_every_epoch_and_every_finished_trial_has_its_step() -> None:
    at = "2026-01-01T00:00:00+00:00"
    events: list[dict[str, Any]] = [
        {"kind": "phase", "name": "fit", "at": at},
        {"kind": "epoch", "candidate": "mlp", "step": 1, "loss": 0.5, "validation": None, "at": at},
        {"kind": "trial", "candidate": "forest", "number": 0, "value": 0.8, "seconds": 3.0, "at": at},
        {"kind": "trial", "candidate": "forest", "number": 1, "value": None, "state": "failed", "at": at},
    ]

    assert list(step_metrics(events)) == [("epoch.mlp.loss", 0.5, at, 1), ("trial.forest.value", 0.8, at, 0)]
