"""The demo as a newcomer runs it: one command, real processes, every step ok."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

STEPS = ["data", "train", "convert", "fleet", "rollout-1", "telemetry", "bad-release", "camera-fault", "explanation", "retrain"]
STEPS += ["rollout-3", "alarm-clears", "summary"]


# Two minutes on two idle cores; a guard against one that hangs, not a promise: a machine with other work takes three times as long.
HANGS_AFTER_S = 840


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgefleet", "demo", "--headless", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANGS_AFTER_S)


@pytest.mark.broker
@pytest.mark.keras
@pytest.mark.slow
@pytest.mark.timeout(HANGS_AFTER_S + 10)
def test_the_whole_loop_ends_with_every_step_ok(tmp_path: Path) -> None:
    result = demo("--json", "--seed", "1", "--keep", str(tmp_path / "kept"))
    assert result.returncode == 0, result.stderr[-4000:]
    document = json.loads(result.stdout)
    steps = {step["name"]: step for step in document["steps"]}
    assert list(steps) == STEPS
    assert document["ok"]
    assert [len(wave["devices"]) for wave in steps["rollout-1"]["waves"]] == [1, 2, 5]
    assert steps["bad-release"]["harmed_devices"] == 1
    (reason,) = steps["bad-release"]["reasons"].values()
    assert "agrees with the running model on" in reason
    assert steps["bad-release"]["begun"] == steps["bad-release"]["harmed"] == steps["bad-release"]["quarantined_on"]
    assert steps["camera-fault"]["found"] == steps["camera-fault"]["injected"]
    fault = steps["retrain"]["accuracy"]["camera-fault"]
    assert fault["after"] > fault["before"] + 0.1
    assert set(steps["summary"]["running"].values()) == set(steps["summary"]["attested"].values())
    assert len(set(steps["summary"]["running"].values())) == 1
    secrets = [(tmp_path / "kept" / "server" / "admin.token").read_text().strip()]
    logs = "".join(path.read_text(errors="replace") for path in (tmp_path / "kept" / "logs").iterdir())
    assert not any(secret in logs + result.stderr + result.stdout for secret in secrets)


def test_a_broker_that_does_not_answer_ends_the_demo_before_anything_is_trained() -> None:
    result = demo("--broker", "mqtt://127.0.0.1:9")
    assert result.returncode == 4
    assert "no MQTT broker answers at mqtt://127.0.0.1:9" in result.stderr
    assert "Train" not in result.stderr


def test_a_folder_with_files_of_an_earlier_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("x")
    result = demo("--keep", str(tmp_path))
    assert result.returncode == 3
    assert "name a new or an empty one" in result.stderr
