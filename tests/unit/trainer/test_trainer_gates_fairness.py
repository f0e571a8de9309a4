import fairlearn.metrics as oracle
import numpy as np
import pytest

from edgefleet.errors import ConfigError
from edgefleet.manifest import Input
from tests.unit.trainer.judged import Wanted, some_rows
from trainer.answers import Answers
from trainer.dataset import DataSet
from trainer.gates import Gate
from trainer.gates.slices import judge_fairness, largest_gap
from trainer.settings import Gates, Goal


def people(rng: np.random.Generator, flagged: list[float], n: int = 2000) -> tuple[DataSet, Answers]:
    """Rows of as many groups, flagged with these probabilities whatever their label."""
    group = rng.integers(len(flagged), size=n)
    label = (rng.random(n) < 0.4).astype(np.int64)
    hit = (rng.random(n) < np.array(flagged)[group]).astype(int)
    names = np.array([f"g{i}" for i in range(len(flagged))])
    return some_rows(label, slices={"who": names[group]}), Answers(probabilities=np.eye(2)[hit])


def judge(rows: DataSet, answers: Answers, limit: float | None = 0.2) -> Gate:
    return judge_fairness(Wanted(gates=Gates(fairness=["who"], fairness_gap=limit)), rows, answers)


@pytest.mark.parametrize("seed", range(5))
def test_the_gap_is_fairlearns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, answers = people(rng, [0.3, 0.4, 0.6])
    who, decided = rows.slices["who"], answers.answers()

    found, few = largest_gap(rows, answers, who, 0)

    assert found is not None
    assert found[0] == pytest.approx(
        max(
            oracle.equalized_odds_difference(rows.label, decided, sensitive_features=who),
            oracle.demographic_parity_difference(rows.label, decided, sensitive_features=who),
        ),
        abs=1e-12,
    )
    assert few == []


@pytest.mark.parametrize(("flagged", "verdict"), [([0.5, 0.5], "pass"), ([0.43, 0.6], "inconclusive"), ([0.2, 0.8], "fail")])
def test_g10_judges_the_bounds_of_the_largest_gap(flagged: list[float], verdict: str) -> None:
    gate = judge(*people(np.random.default_rng(1), flagged))

    assert gate.verdict == verdict
    assert gate.low is not None
    assert gate.high is not None
    assert gate.low < (gate.value or 0) < gate.high


def test_equal_groups_fail_at_most_in_five_per_cent_at_any_limit() -> None:
    # Four equal groups: the largest gap is never 0, its recentred lower bound is nearly always.
    rng = np.random.default_rng(2)

    above = [(judge(*people(rng, [0.5] * 4, 600)).low or 0.0) > 0 for _ in range(150)]

    assert np.mean(above) <= 0.08  # 5 % and two standard errors of 150 sets


def test_small_groups_are_named_not_hidden() -> None:
    rows, answers = people(np.random.default_rng(3), [0.5, 0.5, 0.5])
    who = rows.slices["who"].copy()
    who[:] = np.where(who == "g2", "g1", who)
    who[:29] = "g9"

    gate = judge(some_rows(rows.label, slices={"who": who}), answers)

    assert gate.verdict == "pass"
    assert "Under 30 rows, not compared: who = g9" in gate.sentence


def test_one_group_cannot_be_compared() -> None:
    gate = judge(*people(np.random.default_rng(4), [0.5]))

    assert gate.verdict == "inconclusive"
    assert "No two groups can be compared" in gate.sentence


def test_a_category_input_may_name_the_groups() -> None:
    rows, answers = people(np.random.default_rng(5), [0.2, 0.8])
    x = np.where(rows.slices["who"] == "g0", 0, 1)[:, None].astype(np.float32)
    x[:40] = np.nan
    inputs = [Input(name="site", kind="category", categories=["north", "south"], missing=True)]
    wanted = Wanted(gates=Gates(fairness=["site"], fairness_gap=0.2), inputs=inputs)

    gate = judge_fairness(wanted, some_rows(rows.label, x=x), answers)

    assert gate.verdict == "fail"
    assert "between site = south and north" in gate.sentence


def test_an_unknown_column_is_refused_with_those_there_are() -> None:
    rows, answers = people(np.random.default_rng(6), [0.5, 0.5])

    with pytest.raises(ConfigError, match="names 'sex'; slice columns and category inputs are who"):
        judge_fairness(Wanted(gates=Gates(fairness=["sex"])), rows, answers)


def test_without_a_limit_the_gap_is_only_shown() -> None:
    gate = judge(*people(np.random.default_rng(7), [0.2, 0.8]), limit=None)

    assert gate.verdict == "skipped"
    assert gate.sentence.startswith("Largest gap is 0.")


def test_many_classes_and_numbers_are_skipped_with_the_reason() -> None:
    rows, answers = people(np.random.default_rng(8), [0.5, 0.5])
    three = some_rows(rows.label, ["a", "b", "c"], slices=rows.slices)
    wanted = Wanted(goal=Goal(question="q", task="regression"), gates=Gates(fairness=["who"]))

    assert "there are 3" in judge(three, answers).sentence
    assert "this is a regression" in judge_fairness(wanted, rows, answers).sentence


def test_persons_with_many_rows_are_drawn_whole() -> None:
    rows, answers = people(np.random.default_rng(9), [0.5, 0.5], 400)
    many = np.repeat(np.arange(400), 5)
    alike = some_rows(rows.label[many], slices={"who": rows.slices["who"][many]}, group=many.astype(str))

    alone, grouped = judge(rows, answers), judge(alike, answers.take(many))

    assert grouped.value == pytest.approx(alone.value)
    assert grouped.high == pytest.approx(alone.high, abs=0.03)  # and not a factor sqrt(5) closer


def test_a_gap_that_is_surely_too_large_is_not_hidden_by_a_wide_one() -> None:
    rng = np.random.default_rng(8)
    label, who = rng.integers(2, size=20_000), rng.integers(2, size=20_000)
    flagged = (rng.random(20_000) < np.where(who == 1, 0.65, 0.4)).astype(np.int64)
    rare = np.where(np.arange(20_000) < 60, "rare", "common")  # its rates over some 30 rows are known to a quarter or so
    flagged[:60] = (rng.random(60) < 0.65).astype(np.int64)
    slices = {"who": who.astype(str), "kind": rare}

    wanted = Wanted(gates=Gates(fairness=["who", "kind"], fairness_gap=0.2))
    gate = judge_fairness(wanted, some_rows(label, slices=slices), Answers(probabilities=np.eye(2)[flagged]))

    assert gate.verdict == "fail"
    assert "between who = 1 and 0" in gate.sentence
