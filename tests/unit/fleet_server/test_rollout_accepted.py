"""What a person accepts by resuming: it pauses nothing again and holds back no promotion, and every stop still counts it."""

from dataclasses import replace

import pytest

from fleet_server.rollout.comparisons import COMPARISONS, Wealth
from fleet_server.rollout.judgement import Accepted, Clock, Finding, decisive, judge, seen
from fleet_server.rollout.rules import Rule
from fleet_server.rollout.tally import Tally
from tests.unit.fleet_server.test_rollout_judgement import BOUND, DAY, POSTERIOR, RIPE, tally


def after(accepted: Accepted, clock: Clock = RIPE) -> Clock:
    return replace(clock, accepted=accepted)


def finding(seen_now: Tally, clock: Clock, gate: str) -> Finding:
    return next(one for one in judge(BOUND, seen_now, clock) if one.gate == gate)


@pytest.mark.parametrize("rule", [BOUND, POSTERIOR], ids=lambda rule: rule.kind)
def test_accepted_failures_promote_where_the_others_do(rule: Rule) -> None:
    shown = tally(failed=12)
    assert decisive(judge(rule, shown, RIPE)).word != "promote"

    found = judge(rule, shown, after(seen(shown)))

    assert [one.word for one in found if one.gate in ("early warning", "evidence")] == ["promote", "promote"]


def test_as_many_new_failures_pause_again_and_say_what_was_accepted() -> None:
    shown = tally(failed=8)
    more = finding(tally(200, 24), after(seen(shown)), "early warning")

    assert more.word == "pause"
    assert "(a person accepted 8)" in more.sentence


def test_an_abort_counts_what_was_accepted() -> None:
    shown = tally(failed=30)

    assert finding(shown, after(seen(shown)), "stop").word == "abort"


def test_missing_devices_that_were_accepted_hold_nothing_back_and_new_ones_do() -> None:
    shown = tally(missing=8)
    assert finding(shown, RIPE, "evidence").word != "promote"

    assert finding(shown, after(seen(shown)), "evidence").word == "promote"
    assert finding(tally(missing=16), after(seen(shown)), "evidence").word != "promote"


def test_sites_that_were_dark_are_accepted_and_further_ones_are_not() -> None:
    shown = replace(tally(), sites_out=4)
    assert finding(shown, RIPE, "sites").word == "pause"

    assert finding(shown, after(seen(shown)), "sites").word == "promote"
    assert finding(replace(tally(), sites_out=8), after(seen(shown)), "sites").word == "pause"


def test_comparisons_must_grow_by_as_much_again() -> None:
    gate = COMPARISONS["p95 latency"]
    rich = replace(tally(), wealth={"p95 latency": Wealth(Wealth.start(gate).logs + 8.0, 77)})
    richer = replace(tally(), wealth={"p95 latency": Wealth(Wealth.start(gate).logs + 14.0, 77)})
    assert finding(rich, RIPE, "comparisons").word == "pause"

    assert finding(rich, after(seen(rich)), "comparisons").word == "promote"
    assert finding(richer, after(seen(rich)), "comparisons").word == "pause"


def test_nothing_accepted_changes_nothing() -> None:
    for failed in (0, 2, 8, 30):
        assert judge(BOUND, tally(failed=failed), RIPE) == judge(BOUND, tally(failed=failed), after(Accepted()))


def test_who_accepts_everything_still_promotes_nobody() -> None:
    everybody = tally(77, 77)

    assert finding(everybody, after(replace_failures(77)), "evidence").word != "promote"


def replace_failures(count: int) -> Accepted:
    return Accepted(failures=count, missing=count)


def test_a_dwell_is_not_shortened_by_a_resume() -> None:
    young = Clock(opened_all=True, open_s=60.0, dwell_s=DAY, judged_s=None, patience_s=3_600.0, hold_s=DAY)
    shown = tally(failed=8)

    assert decisive(judge(BOUND, shown, after(seen(shown), young))).word == "hold"
