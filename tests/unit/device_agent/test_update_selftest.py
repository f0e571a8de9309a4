"""The self-test in its child process, and the trial's counts."""

from pathlib import Path

import pytest

from device_agent.update.disk import Disk
from device_agent.update.selftest import SelftestResult, check_golden, run_in_child
from device_agent.update.store import Store
from device_agent.update.trial import Trial, TrialVerdict
from edgefleet.bundle import Bundle
from edgefleet.desired import TrialPolicy
from tests.unit.device_agent.agent_world import make_bundle, weights

GIGABYTE = 1 << 30


def installed(folder: Path, bundle: Bundle) -> Store:
    store = Store(folder, Disk())
    for digest, source in [(bundle.digest, "manifest.json")] + [(e.sha256, name) for name, e in bundle.manifest.files.items()]:
        store.make_room_for(digest)
        store.blob_path(digest).write_bytes(bundle.locate(source).read_bytes())
    store.write_slot(bundle.digest, bundle.manifest, "onnx-fp32")
    return store


def in_child(folder: Path, digest: str, timeout_s: float = 60.0, memory_bytes: int = 8 * GIGABYTE) -> SelftestResult:
    return run_in_child(folder, digest, timeout_s=timeout_s, memory_bytes=memory_bytes)


def test_golden_rows_that_agree_pass(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", weights(1))
    installed(tmp_path / "device", bundle)

    result = in_child(tmp_path / "device", bundle.digest)

    assert result.ok
    assert "16 golden rows agree" in result.reason


def test_golden_rows_that_disagree_fail_with_the_numbers(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", weights(1), golden_shift=0.01)
    installed(tmp_path / "device", bundle)

    result = in_child(tmp_path / "device", bundle.digest)

    assert (result.ok, result.crashed) == (False, False)
    assert "largest error 0.01 on 16 golden rows, allowed is 0.0001" in result.reason


def test_a_damaged_slot_fails_and_names_the_file(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", weights(1))
    store = installed(tmp_path / "device", bundle)
    path = store.blob_path(bundle.manifest.files["onnx-fp32.onnx"].sha256)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    result = in_child(tmp_path / "device", bundle.digest)

    assert not result.ok
    assert "onnx-fp32.onnx: sha256" in result.reason


def test_too_little_memory_is_a_crash_that_another_attempt_may_survive(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", weights(1))
    installed(tmp_path / "device", bundle)

    result = in_child(tmp_path / "device", bundle.digest, memory_bytes=100_000_000)

    assert (result.ok, result.crashed) == (False, True)


def test_a_model_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", weights(1))
    installed(tmp_path / "device", bundle)

    result = in_child(tmp_path / "device", bundle.digest, timeout_s=0.0)

    assert (result.ok, result.crashed) == (False, True)
    assert "longer than 0 s" in result.reason


def test_the_same_check_runs_in_this_process(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", weights(1))
    assert check_golden(bundle, bundle.variant("onnx-fp32")).ok


POLICY = TrialPolicy(soak_s=10.0, soak_rows=20, timeout_s=60.0, agreement_rows=50, min_agreement=0.9)


def counted(both: int, agreed: int, policy: TrialPolicy = POLICY, compared: bool = True) -> Trial:
    trial = Trial(policy, 100.0, compared)
    for i in range(both):
        trial.count("a", "a" if i < agreed else "b")
    return trial


@pytest.mark.parametrize(
    ("both", "agreed", "at_s", "verdict"),
    [
        (49, 0, 105.0, TrialVerdict.RUNNING),
        (50, 44, 105.0, TrialVerdict.REJECTED),
        (50, 45, 105.0, TrialVerdict.RUNNING),
        (50, 45, 110.0, TrialVerdict.OK),
        (30, 30, 110.0, TrialVerdict.RUNNING),
        (30, 30, 160.0, TrialVerdict.TIMEOUT),
    ],
)
def test_the_verdict_needs_soak_time_rows_and_agreement(both: int, agreed: int, at_s: float, verdict: TrialVerdict) -> None:
    assert counted(both, agreed).verdict(at_s)[0] is verdict


def test_a_rejection_gives_its_numbers() -> None:
    reason = counted(50, 20).verdict(101.0)[1]
    assert reason == "agrees with the running model on 20 of 50 rows (40.0%), at least 90.0% is needed"


def test_without_a_running_model_agreement_is_skipped_and_said_so() -> None:
    verdict, reason = counted(20, 0, compared=False).verdict(110.0)

    assert verdict is TrialVerdict.OK
    assert "agreement skipped (first model on this device)" in reason


def test_agreement_that_the_policy_switches_off_is_not_judged_and_says_why() -> None:
    policy = TrialPolicy(soak_s=10.0, soak_rows=20, timeout_s=60.0, min_agreement=None, agreement_reason="the classes changed")

    verdict, reason = counted(60, 0, policy).verdict(110.0)

    assert verdict is TrialVerdict.OK
    assert "the classes changed" in reason


def test_a_row_that_only_the_candidate_cannot_answer_is_a_disagreement() -> None:
    trial = Trial(POLICY, 0.0, True)
    for _ in range(50):
        trial.count("a", None)
    trial.last_error = "bad input"

    verdict, reason = trial.verdict(1.0)

    assert verdict is TrialVerdict.REJECTED
    assert "last error: bad input" in reason
