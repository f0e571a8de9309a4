"""What would change the answer of a gate: each number is checked by giving the gates what the sentence asks for."""

import re
from dataclasses import replace

import pytest

from fleet_server.rollout.judgement import Clock, Finding, judge
from fleet_server.rollout.rules import Rule
from fleet_server.rollout.silence import silence
from fleet_server.rollout.tally import Stratum, Tally
from fleet_server.rollout.turning import more_failures_until, turns
from tests.unit.fleet_server.test_rollout_judgement import BOUND, DAY, POSTERIOR, RIPE, finding, tally

YOUNG = Clock(opened_all=False, open_s=3_600.0, dwell_s=DAY, judged_s=None, patience_s=4 * 3_600.0, hold_s=DAY)


def said(rule: Rule, seen: Tally, clock: Clock = RIPE) -> dict[str, str]:
    return turns(rule, seen, clock, judge(rule, seen, clock))


def number(sentence: str) -> int:
    found = re.search(r"\d+", sentence)
    assert found is not None, sentence
    return int(found.group())


@pytest.mark.parametrize("rule", [BOUND, POSTERIOR], ids=lambda rule: rule.kind)
@pytest.mark.parametrize("failed", [0, 2, 5])
@pytest.mark.parametrize(("gate", "word"), [("stop", "abort"), ("early warning", "pause")])
def test_so_many_more_failures_change_the_word_and_one_less_does_not(rule: Rule, failed: int, gate: str, word: str) -> None:
    more = more_failures_until(rule, tally(failed=failed), RIPE, gate, (word,))

    assert more is not None
    assert finding(rule, tally(failed=failed + more), gate).word == word
    assert finding(rule, tally(failed=failed + more - 1), gate).word != word
    assert number(said(rule, tally(failed=failed))[gate]) == more


@pytest.mark.parametrize("rule", [BOUND, POSTERIOR], ids=lambda rule: rule.kind)
@pytest.mark.parametrize("failed", [8, 12, 30])
def test_so_many_more_devices_without_a_failure_would_promote_and_one_less_would_not(rule: Rule, failed: int) -> None:
    sentence = said(rule, tally(failed=failed))["evidence"]
    more = number(sentence)
    # No dwell, so that only the numbers of this wave decide.
    now = Clock(opened_all=True, open_s=60.0, dwell_s=0.0, judged_s=60.0, patience_s=1e6, hold_s=1e6)

    assert finding(rule, tally(77 + more, failed), "evidence", now).word == "promote"
    assert finding(rule, tally(77 + more - 1, failed), "evidence", now).word == "hold"


def test_failures_are_taken_to_come_where_they_weigh_most() -> None:
    uneven = replace(tally(100, 3), strata={"m1": Stratum(90, 0), "m2": Stratum(10, 3)}, quiet=tally(100, 3).quiet)
    even = replace(tally(100, 3), strata={"m1": Stratum(50, 1), "m2": Stratum(50, 2)})

    in_small, in_large = (more_failures_until(BOUND, seen, RIPE, "stop", ("abort",)) for seen in (uneven, even))

    assert in_small is not None
    assert in_large is not None
    assert in_small < in_large


def test_where_no_number_of_failures_can_abort_that_is_said() -> None:
    assert more_failures_until(BOUND, tally(1, sites=1), RIPE, "stop", ("abort",)) is None
    assert "early warning pauses first" in said(BOUND, tally(1, sites=1))["stop"]


def test_a_young_wave_says_what_time_it_needs_and_each_part_is_enough() -> None:
    seen = replace(tally(20), heard_after_dwell=3, opened=77)
    sentence = said(BOUND, seen, YOUNG)["time"]

    assert "remaining batches" in sentence
    assert "23.0 h more of dwell" in sentence
    assert "deadline of 19 more devices" in sentence
    assert "9 more devices being heard" in sentence
    enough = replace(tally(39), heard_after_dwell=24, opened=77)
    assert finding(BOUND, enough, "time").word == "promote"


def test_a_wave_nobody_has_begun_needs_its_first_device() -> None:
    nobody = Tally(opened=77, strata={}, quiet=silence([]))

    assert said(BOUND, nobody, YOUNG)["time"] == "The first device that begins."
    assert "stop" not in said(BOUND, nobody, YOUNG)


def test_a_gate_that_has_aborted_is_not_talked_out_of_it() -> None:
    assert said(BOUND, tally(failed=30))["stop"].startswith("Nothing")


def test_the_sites_that_would_have_to_go_dark_are_enough_and_one_less_is_not() -> None:
    more = number(said(BOUND, tally())["sites"])

    assert finding(BOUND, replace(tally(), sites_out=more), "sites").word == "pause"
    assert finding(BOUND, replace(tally(), sites_out=more - 1), "sites").word == "promote"


@pytest.mark.parametrize(
    ("clock", "words"),
    [
        (RIPE, "may grow 3 times"),
        (replace(RIPE, grown=2), "may grow once more"),
        (replace(RIPE, may_grow=False), "cannot grow any more"),
        (replace(RIPE, judged_s=1.4 * DAY), "a person is asked now"),
    ],
)
def test_a_hold_says_what_comes_next(clock: Clock, words: str) -> None:
    assert words in said(BOUND, tally(failed=3), clock)["evidence"]


def test_without_an_early_warning_nothing_is_said_of_it() -> None:
    assert "early warning" not in said(Rule("bound", warn_limit=None), tally())


@pytest.mark.parametrize("failed", [0, 1, 8, 30])
def test_how_near_a_gate_is_to_its_limit_grows_with_failures_and_is_reached_with_its_word(failed: int) -> None:
    fewer, more = (finding(BOUND, tally(failed=k), "stop") for k in (failed, failed + 1))

    assert level(fewer) <= level(more)
    assert (level(fewer) == 1.0) is (fewer.word == "abort")


def level(one: Finding) -> float:
    assert one.level is not None
    return one.level
