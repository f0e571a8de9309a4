"""Verdicts by evidence: what stops, what waits, what goes on, and that bad or missing news never promotes."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import ConfigError
from fleet_server.rollout.comparisons import COMPARISONS, Wealth
from fleet_server.rollout.judgement import SEVERITY, Clock, Finding, decisive, judge, judgeable
from fleet_server.rollout.rules import Rule
from fleet_server.rollout.silence import SiteGroup, silence
from fleet_server.rollout.tally import Stratum, Tally

BOUND, POSTERIOR = Rule("bound"), Rule("posterior", extends=2)
DAY = 86_400.0
RIPE = Clock(opened_all=True, open_s=1.1 * DAY, dwell_s=DAY, judged_s=60.0, patience_s=4 * 3_600, hold_s=1.4 * DAY)


def groups_of(exposed: int = 77, *, silent: int = 0, missing: int = 0, sites: int = 10) -> list[SiteGroup]:
    """Devices spread over sites, all due."""
    edges = [exposed * i // sites for i in range(sites + 1)]

    def spread(count: int) -> list[int]:
        return [count * end // exposed - count * start // exposed for start, end in itertools.pairwise(edges)]

    parts = zip([end - start for start, end in itertools.pairwise(edges)], spread(silent), spread(missing), strict=True)
    return [SiteGroup(f"s{number}", "north", n, n, k, m, 20, 0, 0) for number, (n, k, m) in enumerate(parts)]


def tally(exposed: int = 77, failed: int = 0, *, silent: int = 0, missing: int = 0, sites: int = 10) -> Tally:
    """Devices of one model, all due, dwelled, and heard but for the silent and missing."""
    return Tally(
        opened=exposed,
        strata={"m1": Stratum(exposed, failed)},
        quiet=silence(groups_of(exposed, silent=silent, missing=missing, sites=sites)),
        dwelled=exposed,
        dwelled_failed=failed,
        heard_after_dwell=exposed - failed - missing,
        sites_exposed=sites,
    )


def word(rule: Rule, seen: Tally, clock: Clock = RIPE) -> str:
    return decisive(judge(rule, seen, clock)).word


def finding(rule: Rule, seen: Tally, gate: str, clock: Clock = RIPE) -> Finding:
    return next(one for one in judge(rule, seen, clock) if one.gate == gate)


def test_a_first_wave_without_failures_is_promoted() -> None:
    assert word(BOUND, tally()) == word(POSTERIOR, tally()) == "promote"


@pytest.mark.parametrize(
    ("failed", "expected"), [(0, "promote"), (1, "promote"), (2, "hold"), (3, "hold"), (7, "hold"), (8, "pause"), (30, "abort")]
)
def test_more_failures_make_the_word_graver(failed: int, expected: str) -> None:
    assert word(BOUND, tally(failed=failed)) == expected


def test_the_bound_of_nine_in_ten_lets_one_of_seventy_seven_fail() -> None:
    strict = Rule("bound", confidence=0.9)

    assert [word(strict, tally(failed=k)) for k in (1, 2)] == ["promote", "hold"]


def test_nobody_is_no_evidence() -> None:
    nobody = Tally(opened=77, strata={}, quiet=silence([]))

    assert word(BOUND, nobody) == word(POSTERIOR, nobody) == "hold"
    assert "nobody is no evidence" in decisive(judge(BOUND, nobody, RIPE)).sentence


@pytest.mark.parametrize(
    ("clock", "words"),
    [
        (replace(RIPE, opened_all=False), "more follow"),
        (replace(RIPE, open_s=DAY / 2), "open for 12.0 h of 24.0 h"),
    ],
)
def test_a_wave_waits_for_its_opening_and_its_dwell(clock: Clock, words: str) -> None:
    found = finding(BOUND, tally(), "time", clock)

    assert found.word == word(BOUND, tally(), clock) == "hold"
    assert words in found.sentence
    assert not judgeable(tally(), clock)


def test_a_wave_waits_until_enough_deadlines_are_over() -> None:
    early = silence(replace(group, due=5) for group in groups_of())

    assert "deadline of 50 of 77" in finding(BOUND, replace(tally(), quiet=early), "time").sentence
    assert word(BOUND, replace(tally(), quiet=early)) == "hold"


def test_a_wave_waits_until_devices_were_heard_after_the_dwell() -> None:
    few = replace(tally(), heard_after_dwell=44)

    assert word(BOUND, few) == "hold"
    assert word(BOUND, replace(few, heard_after_dwell=45)) == "promote"


def test_late_failures_of_old_devices_are_not_diluted_by_young_ones() -> None:
    diluted = replace(tally(exposed=400, failed=8), dwelled=90, dwelled_failed=8, heard_after_dwell=85)

    assert word(BOUND, diluted) == "hold"
    assert "8 of 90 failed over the whole dwell" in finding(BOUND, diluted, "evidence").sentence
    # 3 of 90 are fewer than 5 %, but no proof of it; among all 400 they would be.
    assert word(BOUND, replace(tally(exposed=400, failed=3), dwelled=90, dwelled_failed=3, heard_after_dwell=85)) == "hold"
    assert word(BOUND, replace(tally(exposed=400, failed=3), dwelled=120, dwelled_failed=3, heard_after_dwell=115)) == "promote"


def test_a_wave_whose_old_devices_are_only_too_few_waits_for_the_young_ones_before_it_grows() -> None:
    # 2 of 92 prove the limit, 2 of the 70 that had the whole dwell do not.
    young = replace(tally(exposed=92, failed=2), dwelled=70, heard_after_dwell=68)

    assert word(BOUND, young, replace(RIPE, judged_s=5 * 3_600.0)) == "hold"
    assert (
        word(BOUND, replace(tally(exposed=92, failed=3), dwelled=70, heard_after_dwell=67), replace(RIPE, judged_s=5 * 3_600.0)) == "extend"
    )
    # Whose dwell never ends is not waited for longer than a dwell.
    assert word(BOUND, young, replace(RIPE, judged_s=29 * 3_600.0)) == "extend"


def test_silence_above_the_limit_lets_no_wave_grow() -> None:
    later = replace(RIPE, judged_s=5 * 3_600.0)

    assert word(BOUND, tally(exposed=92, missing=4), later) == "extend"
    assert word(BOUND, tally(exposed=92, missing=6), later) == "hold"
    assert word(BOUND, tally(exposed=92, failed=6), later) == "extend"


def test_a_wave_that_grew_leans_less_far_over_the_limit() -> None:
    rule = Rule("bound")

    assert [rule.extend(12, 190, grown) for grown in (0, 1)] == [True, False]
    assert [rule.extend(11, 190, grown) for grown in (0, 1)] == [True, True]


def test_silence_of_many_aborts_or_pauses_a_small_wave() -> None:
    assert word(BOUND, tally(silent=14)) == "pause"
    assert word(BOUND, tally(exposed=400, silent=160)) == "abort"


def test_missing_devices_keep_a_wave_from_being_promoted_until_they_are_back() -> None:
    assert word(BOUND, tally(missing=9)) == "hold"
    assert word(BOUND, tally(missing=0)) == "promote"


def test_devices_that_the_controls_miss_too_do_not_count_against_the_release() -> None:
    night = silence(replace(group, silent=2, missing=2, controls_silent=6, controls_missing=6) for group in groups_of())

    assert word(BOUND, replace(tally(), quiet=night)) == "promote"


def test_one_model_of_many_that_fails_whole_is_found_among_the_others() -> None:
    strata = {f"m{i}": Stratum(13, 0) for i in range(5)} | {"rare": Stratum(12, 12)}
    found = decisive(judge(BOUND, replace(tally(failed=0), strata=strata, dwelled_failed=12), RIPE))

    assert found.word == "abort"
    assert "Most in rare: 12 of 12" in found.sentence


def test_sites_that_go_dark_stop_a_rollout_that_controls_would_excuse() -> None:
    assert word(BOUND, replace(tally(), sites_out=4, sites_out_share=0.014)) == "pause"
    assert word(BOUND, replace(tally(), sites_out=1, sites_out_share=0.014)) == "promote"
    assert word(BOUND, replace(tally(sites=2), sites_out=1)) == "hold"


def test_a_model_that_behaves_otherwise_pauses_and_never_aborts() -> None:
    gate = COMPARISONS["memory"]
    heavier = {"memory": Wealth.start(gate).after(gate, np.full((77, 1), 0.15).tolist())}

    found = decisive(judge(BOUND, replace(tally(), wealth=heavier), RIPE))

    assert (found.gate, found.word) == ("comparisons", "pause")
    assert "memory" in found.sentence


def test_too_few_comparisons_hold() -> None:
    gate = COMPARISONS["memory"]

    assert word(BOUND, replace(tally(), wealth={"memory": Wealth.start(gate).after(gate, [[0.0]])})) == "hold"


def test_unreadable_facts_pause_with_names() -> None:
    found = decisive(judge(BOUND, replace(tally(), unreadable=("d1", "d2")), RIPE))

    assert found.word == "pause"
    assert "d1, d2" in found.sentence


@pytest.mark.parametrize("rule", [BOUND, POSTERIOR], ids=lambda rule: rule.kind)
def test_a_wave_that_leans_good_grows_and_one_that_cannot_asks_a_person(rule: Rule) -> None:
    seen = tally(failed=3) if rule.kind == "bound" else tally(exposed=40, failed=3, sites=4)
    later = replace(RIPE, judged_s=5 * 3_600.0)

    assert word(rule, seen) == "hold"
    assert word(rule, seen, later) == "extend"
    assert word(rule, seen, replace(later, grown=rule.extends)) == "hold"
    assert word(rule, seen, replace(later, may_grow=False)) == "hold"
    assert word(rule, seen, replace(later, may_grow=False, judged_s=2 * DAY)) == "pause"


def test_a_posterior_that_history_made_patient_still_stops_a_bad_release() -> None:
    assert word(POSTERIOR, tally(exposed=20, failed=0, sites=4)) == "promote"
    assert word(POSTERIOR, tally(exposed=20, failed=4, sites=4)) == "pause"


@given(exposed=st.integers(5, 400), failed=st.integers(0, 40), silent=st.integers(0, 40), missing=st.integers(0, 40), bound=st.booleans())
def test_one_more_piece_of_bad_news_never_makes_the_word_milder(
    exposed: int, failed: int, silent: int, missing: int, *, bound: bool
) -> None:
    rule = BOUND if bound else POSTERIOR
    failed, silent = min(failed, exposed - 1), min(silent, exposed // 2)
    missing = min(missing, (exposed - failed) // 2)
    before = SEVERITY.index(word(rule, tally(exposed, failed, silent=silent, missing=missing)))

    # `extend` takes more devices only to answer a doubt, so bad news may turn it into `hold` but never anything into `promote`.
    worse = SEVERITY.index(word(rule, tally(exposed, failed + 1, silent=silent, missing=missing)))

    assert worse <= before


@given(exposed=st.integers(5, 300), due=st.floats(0, 1), heard=st.floats(0, 1))
def test_fewer_reports_never_promote_what_more_did_not(exposed: int, due: float, heard: float) -> None:
    whole = tally(exposed)
    early = silence(replace(group, due=int(due * group.due)) for group in groups_of(exposed))
    fewer = replace(whole, quiet=early, heard_after_dwell=int(heard * whole.heard_after_dwell))

    if word(BOUND, fewer) == "promote":
        assert word(BOUND, whole) == "promote"


@pytest.mark.parametrize(
    "made",
    [
        lambda: Stratum(3, 4),
        lambda: replace(tally(), opened=5),
        lambda: replace(tally(), strata={"m": Stratum(5, 0)}),
        lambda: replace(tally(), dwelled=99),
        lambda: replace(tally(), sites_out=11),
        lambda: replace(tally(), sites_out_share=float("nan")),
    ],
)
def test_sums_that_contradict_each_other_are_refused(made: object) -> None:
    with pytest.raises(ConfigError, match=r"cannot be|again|expected"):
        made()  # type: ignore[operator]
