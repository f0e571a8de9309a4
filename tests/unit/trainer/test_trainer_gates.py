from dataclasses import replace

import numpy as np
import pytest

from edgefleet.errors import ConfigError
from edgefleet.manifest import Input, Override
from trainer.dataset import DataSet
from trainer.gates import (
    check_overrides,
    judge_champion,
    judge_leakage,
    judge_minimum,
    judge_quality,
    judge_schema,
    judge_slices,
    overrule,
)


def answers(right: int, wrong: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.array([True] * right + [False] * wrong)


def four_rows() -> DataSet:
    return DataSet(
        x=np.arange(8, dtype=np.float32).reshape(4, 2),
        label=np.array([0, 1, 0, 1]),
        split=np.array(["train", "train", "validation", "test"]),
        slice=np.array(["all"] * 4),
        row_id=np.array(["r0", "r1", "r2", "r3"]),
        group=np.array(["g0", "g0", "g1", "g2"]),
        classes=["no", "yes"],
        breaches=0,
        named_breaches=[],
        digest="",
    )


def test_g1_names_the_breaches() -> None:
    gate = judge_schema(98, 2, ["row 4, column a: 'x', expected a finite number"])

    assert (gate.verdict, gate.value, gate.limit, gate.n) == ("fail", 2, 0, 100)
    assert "row 4, column a: 'x'" in gate.sentence


def test_g2_passes_without_missing_values_even_at_limit_zero() -> None:
    x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)

    assert judge_quality(x, [Input(name="a"), Input(name="b")], 0.0).verdict == "pass"


def test_g2_fails_when_most_of_a_column_is_missing() -> None:
    x = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    x[:80, 1] = np.nan

    gate = judge_quality(x, [Input(name="a"), Input(name="b", missing=True)], 0.5)

    assert gate.verdict == "fail"
    assert gate.value == pytest.approx(0.8)
    assert "(b)" in gate.sentence


def test_g2_is_inconclusive_about_a_constant_column() -> None:
    x = np.ones((100, 1), np.float32)

    gate = judge_quality(x, [Input(name="a")], 0.5)

    assert gate.verdict == "inconclusive"
    assert "1 columns never change: a" in gate.sentence


def test_g2_is_skipped_below_thirty_rows() -> None:
    assert judge_quality(np.ones((29, 1), np.float32), [Input(name="a")], 0.5).verdict == "skipped"


def test_g3_passes_when_groups_stay_in_their_split() -> None:
    assert judge_leakage(four_rows()).verdict == "pass"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"row_id": np.array(["r0", "r1", "r0", "r3"])}, "1 row ids stand in two splits"),
        ({"group": np.array(["g0", "g0", "g1", "g0"])}, "1 groups stand in two splits"),
        ({"x": np.array([[0, 1], [2, 3], [0, 1], [6, 7]], np.float32)}, "1 equal rows stand in two splits"),
        ({"row_id": np.array(["r0", "r0", "r2", "r3"])}, "1 row ids are repeated"),
    ],
)
def test_g3_finds_what_stands_in_two_splits(change: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]], words: str) -> None:
    gate = judge_leakage(replace(four_rows(), **change))  # type: ignore[arg-type]  # the parameter table mixes dtypes

    assert gate.verdict == "fail"
    assert words in gate.sentence


@pytest.mark.parametrize(
    ("right", "verdict"),
    [
        (950, "pass"),  # lower bound .9374
        (900, "inconclusive"),  # .8833 to .9145
        (850, "fail"),  # upper bound .8676
    ],
)
def test_g4_judges_one_sided_bounds(right: int, verdict: str) -> None:
    gate = judge_minimum(answers(right, 1000 - right), None, 0.9)

    assert gate.verdict == verdict


def test_g4_numbers_are_wilsons_by_hand() -> None:
    # n = 1000, p = .9, z = 1.6449: centre .898921, half width .015624.
    gate = judge_minimum(answers(900, 100), None, 0.9)

    assert gate.low == pytest.approx(0.88330, abs=1e-5)
    assert gate.high == pytest.approx(0.91454, abs=1e-5)


def test_g4_with_few_rows_never_passes() -> None:
    assert judge_minimum(answers(5, 0), None, 0.9).verdict == "inconclusive"


def test_g5_without_a_floor_is_skipped_and_says_so() -> None:
    gate = judge_slices(answers(50, 0), np.array(["a", "b"] * 25), None, None)

    assert gate.verdict == "skipped"
    assert "slice_minimum is not set" in gate.sentence


def test_g5_names_the_slice_that_fails() -> None:
    right = np.concatenate([answers(98, 2), answers(60, 40)])
    slices = np.repeat(["day", "night"], 100)

    gate = judge_slices(right, slices, None, 0.8)

    assert gate.verdict == "fail"
    assert "'night'" in gate.sentence
    assert gate.value == pytest.approx(0.6)


def test_g5_with_a_small_slice_is_inconclusive() -> None:
    right = answers(129, 0)
    slices = np.array(["day"] * 100 + ["night"] * 29)

    gate = judge_slices(right, slices, None, 0.8)

    assert gate.verdict == "inconclusive"
    assert "Under 30 rows: night" in gate.sentence


def test_g5_passes_when_every_lower_bound_reaches_the_floor() -> None:
    assert judge_slices(answers(200, 0), np.repeat(["day", "night"], 100), None, 0.9).verdict == "pass"


def test_g7_without_champion_is_skipped_as_first() -> None:
    gate = judge_champion(answers(10, 0), None, None, 0.01)

    assert gate.verdict == "skipped"
    assert "First" in gate.sentence


def paired(only_new: int, only_old: int, n: int) -> tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], ...]:
    both = n - only_new - only_old
    return answers(only_new + both, only_old)[np.arange(n)], np.array([False] * only_new + [True] * (n - only_new))


@pytest.mark.parametrize(("only_new", "only_old", "verdict"), [(80, 40, "pass"), (60, 60, "inconclusive"), (10, 90, "fail")])
def test_g7_is_a_paired_noninferiority_test(only_new: int, only_old: int, verdict: str) -> None:
    # 60/60 by hand: d = 0, se = sqrt(121) / 1002 = .0110, so the bounds are -.0181 and +.0181 about a margin of .01.
    new, old = paired(only_new, only_old, 1000)

    gate = judge_champion(new, old, None, 0.01)

    assert gate.verdict == verdict


def test_g7_inconclusive_says_how_many_rows_it_needs() -> None:
    # 5 % discordant, margin 1 pp: 0.05 * (1.645 + 0.842)^2 / 0.01^2 = 3092 rows for 80 % power.
    new, old = paired(25, 25, 1000)

    gate = judge_champion(new, old, None, 0.01)

    assert gate.verdict == "inconclusive"
    assert "Needs about 3092 rows, had 1000" in gate.sentence


def test_an_override_keeps_the_gates_sentence_and_its_verdict() -> None:
    gates = [judge_minimum(answers(10, 90), None, 0.9)]

    outcome, used, blocking = overrule(gates, [Override(gate="G4", reason="bad on purpose")], [])

    assert outcome[0].verdict == "overridden"
    assert outcome[0].sentence == f"{gates[0].sentence} Overridden (fail): bad on purpose"
    assert used == [Override(gate="G4", reason="bad on purpose")]
    assert blocking == []


def test_an_override_that_was_not_needed_is_not_recorded() -> None:
    outcome, used, blocking = overrule([judge_minimum(answers(100, 0), None, 0.9)], [Override(gate="G4", reason="just in case")], [])

    assert outcome[0].verdict == "pass"
    assert (used, blocking) == ([], [])


def test_inconclusive_blocks_unless_the_project_allows_it() -> None:
    gates = [judge_minimum(answers(5, 0), None, 0.9)]

    assert overrule(gates, [], [])[2] == gates
    assert overrule(gates, [], ["G4"])[2] == []


@pytest.mark.parametrize(("gate", "reason", "words"), [("G99", "why", "'G99' cannot be overridden"), ("G4", "  ", "needs a reason")])
def test_an_override_names_a_known_gate_and_a_reason(gate: str, reason: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_overrides([Override(gate=gate, reason=reason)])
