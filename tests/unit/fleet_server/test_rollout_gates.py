from typing import Any

import pytest

from fleet_server.read_models import Progress
from fleet_server.rollout import DeviceFacts, gates, progress
from fleet_server.rollout.gates import GateResult, combine, true_rate_limit
from tests.unit.fleet_server.rollout_world import NEW, OLD, T0, at, failed, idle, in_wave_two, policy, proved, proven, started, trying
from tests.unit.fleet_server.rollout_world import facts as facts_of


@pytest.mark.parametrize(
    ("known", "word", "says"),
    [
        (idle("d"), "not-begun", "has not said"),
        (trying("d", T0), "pending", "trial, not committed"),
        (proven("d", T0), "ok", "1000 rows"),
        (proven("d", T0, began_at=None), "ok", "committed, attested"),
        (proven("d", T0, attested_digest=OLD), "pending", "signed attestation"),
        (proven("d", T0, attested_at=None), "pending", "signed attestation"),
        (proven("d", T0, rows_since_commit=19), "pending", "19 of 20 rows"),
        (proven("d", at(8)), "pending", "after 3 s"),
        (proven("d", T0, last_heard_at=at(2)), "pending", "after 3 s"),
        (proven("d", T0, last_heard_at=None), "pending", "after 3 s"),
        (proven("d", T0, running_digest=OLD, subject_digest=OLD), "pending", "not committed"),
        (failed("d", T0), "failed", "21 of 50"),
        (trying("d", T0, state="refused", reason="wrong bytes"), "failed", "wrong bytes"),
        (trying("d", T0, state="rolled-back", reason="crash"), "failed", "crash"),
        (trying("d", T0, state="rolled-back", reason="withdrawn by the server"), "pending", "not committed"),
        (trying("d", T0, state="rolled-back", subject_digest=OLD), "pending", "not committed"),
        (idle("d", quarantined=True, reason="failed here before"), "failed", "failed here before"),
        (proven("d", T0, failed_at=at(5), failure="crashed after its success"), "failed", "after its success"),
    ],
)
def test_the_word_for_a_device_follows_from_its_facts(known: DeviceFacts, word: Progress, says: str) -> None:
    found, sentence = progress(known, NEW, policy(), at(10))
    assert found == word
    assert says in sentence


@pytest.mark.parametrize(("seconds", "word"), [(59.9, "pending"), (60.0, "silent"), (10_000.0, "silent")])
def test_a_device_that_began_is_silent_from_its_deadline_on(seconds: float, word: Progress) -> None:
    assert progress(trying("d", T0), NEW, policy(), at(seconds))[0] == word


def test_a_sign_of_life_ends_the_silence() -> None:
    assert progress(trying("d", T0, last_heard_at=at(90)), NEW, policy(), at(100))[0] == "pending"


def test_a_proven_device_that_goes_off_duty_stays_ok() -> None:
    assert progress(proven("d", T0, last_heard_at=at(20)), NEW, policy(), at(100_000))[0] == "ok"


@pytest.mark.parametrize(("n", "percent"), [(0, 100.0), (1, 90.0), (5, 36.9), (10, 20.6), (20, 10.9)])
def test_the_true_rate_after_n_devices_without_failure(n: int, percent: float) -> None:
    assert 100 * true_rate_limit(n) == pytest.approx(percent, abs=0.05)  # the values of Clopper-Pearson at 90 %, rounded to 0.1


def _gate(results: tuple[GateResult, ...], name: str) -> GateResult:
    return next(result for result in results if result.name == name)


def test_the_page_says_what_a_small_n_cannot_exclude() -> None:
    rollout = started(devices=5, waves=["100%"])
    explicit = _gate(gates(rollout, proved(rollout, rollout.members), at(10)), "explicit failures")
    assert explicit.sentence == "0 of 5 failed: the true rate may still be 37 %."


def test_pending_devices_do_not_speak_for_the_release() -> None:
    rollout = started(devices=5, waves=["100%"])
    known = facts_of(rollout, *(trying(device_id, T0) for device_id in rollout.members))
    explicit = _gate(gates(rollout, known, at(10)), "explicit failures")
    assert explicit.sentence == "No device has failed, and none has proved itself: nothing is known."


def test_a_hold_names_whom_it_waits_for_and_why() -> None:
    rollout = in_wave_two()
    first, second, third = rollout.members
    known = facts_of(rollout, proven(first, T0), proven(second, T0), trying(third, at(11)))
    evidence = _gate(gates(rollout, known, at(20)), "evidence")
    assert evidence.sentence == f"Hold: wave 2 waits for 1 of 3 devices: {third} (trial, not committed yet)."
    assert (evidence.now, evidence.limit, evidence.n) == ("2 of 3", "all", 3)


def test_silence_holds_and_names_the_device() -> None:
    rollout = in_wave_two()
    known = facts_of(rollout, *(proven(d, T0) for d in rollout.members[:2]), trying(rollout.members[2], at(11)))
    silence = _gate(gates(rollout, known, at(100)), "silence")
    assert silence.verdict == "hold"
    assert silence.sentence == f"Hold: 1 of 3 devices is silent: {rollout.members[2]} (no sign of life for 89 s (deadline 60 s))."


def test_the_gravest_verdict_decides() -> None:
    def result(verdict: Any) -> GateResult:
        return GateResult("g", verdict, "", "", 0, verdict)

    assert combine([result("promote"), result("hold")]).verdict == "hold"
    assert combine([result("hold"), result("pause"), result("promote")]).verdict == "pause"
    assert combine([result("pause"), result("abort"), result("hold")]).verdict == "abort"


def test_without_gates_or_with_an_unknown_verdict_nothing_is_decided() -> None:
    with pytest.raises(ValueError, match="empty"):
        combine([])
    with pytest.raises(ValueError, match="not in tuple"):
        combine([GateResult("g", "promote", "", "", 0, ""), GateResult("g", "splendid", "", "", 0, "")])  # type: ignore[arg-type]
