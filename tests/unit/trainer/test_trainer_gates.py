"""Verdicts, overrides, and the gates of a candidate: G4, G5, G6, G7, G8, G9."""

import numpy as np
import pytest
from scipy.stats import binom

from edgefleet.errors import ConfigError
from edgefleet.manifest import Override
from tests.unit.trainer.judged import Wanted, right_and_wrong, right_answers, some_rows
from trainer.answers import Answers
from trainer.gates import KNOWN_GATES, Gate, check_overrides, judge_candidate, overrule
from trainer.gates.calibration import judge_calibration
from trainer.gates.metric import judge_champion, judge_goal
from trainer.gates.slices import judge_slices
from trainer.intervals import paired_difference
from trainer.settings import Gates, Goal


def g4(right: int, wrong: int, goal: Goal) -> Gate:
    label, answers = right_answers(right_and_wrong(right, wrong))
    return judge_goal(Wanted(goal=goal), some_rows(label), answers)


MINIMUM = Goal(question="q", minimum=0.9)


@pytest.mark.parametrize(
    ("right", "verdict"),
    [
        (950, "pass"),  # lower bound .9374
        (900, "inconclusive"),  # .8833 to .9145
        (850, "fail"),  # upper bound .8676
    ],
)
def test_g4_judges_one_sided_bounds(right: int, verdict: str) -> None:
    assert g4(right, 1000 - right, MINIMUM).verdict == verdict


def test_g4_numbers_are_wilsons_by_hand() -> None:
    # n = 1000, p = .9, z = 1.6449: centre .898921, half width .015624.
    gate = g4(900, 100, MINIMUM)

    assert gate.low == pytest.approx(0.88330, abs=1e-5)
    assert gate.high == pytest.approx(0.91454, abs=1e-5)
    assert gate.sentence == "Accuracy 0.9 [0.8833, 0.9145] on 1000 rows may or may not reach the minimum 0.9."


def test_g4_with_few_rows_never_passes() -> None:
    assert g4(5, 0, MINIMUM).verdict == "inconclusive"


def test_without_a_criterion_there_is_no_blessing() -> None:
    gate = g4(1000, 0, Goal(question="q"))

    assert gate.verdict == "inconclusive"
    assert "goal.minimum is not set: no criterion, no blessing" in gate.sentence


@pytest.mark.parametrize(("maximum", "verdict"), [(0.6, "pass"), (0.5, "inconclusive"), (0.4, "fail")])
def test_g4_of_a_loss_judges_the_upper_bound(maximum: float, verdict: str) -> None:
    label = np.random.default_rng(0).normal(size=1000)
    answers = Answers(value=label + 0.5 * np.random.default_rng(1).normal(size=1000))
    goal = Goal(question="q", task="regression", metric="rmse", maximum=maximum)

    gate = judge_goal(Wanted(goal=goal), some_rows(label, []), answers)

    assert gate.verdict == verdict
    assert f"the maximum {maximum}" in gate.sentence


def test_g4_of_auc_with_few_positives_is_inconclusive_however_good() -> None:
    label = (np.arange(1000) < 40).astype(np.int64)
    answers = Answers(probabilities=np.eye(2)[label] * 0.8 + 0.1)

    gate = judge_goal(Wanted(goal=Goal(question="q", metric="auc", minimum=0.6)), some_rows(label), answers)

    assert gate.verdict == "inconclusive"
    assert "the rarest class has 40 rows, fewer than 50" in gate.sentence


def test_g4_fails_answers_that_are_no_numbers() -> None:
    label = np.zeros(50)
    answers = Answers(value=np.where(np.arange(50) < 2, np.nan, 0.0))

    gate = judge_goal(Wanted(goal=Goal(question="q", task="regression", metric="mae", maximum=1.0)), some_rows(label, []), answers)

    assert gate.verdict == "fail"
    assert "2 of 50 answers are not finite" in gate.sentence


def test_g4_of_rows_of_one_group_is_inconclusive() -> None:
    label, answers = right_answers(right_and_wrong(1000, 0))

    gate = judge_goal(Wanted(goal=MINIMUM), some_rows(label, group=np.full(1000, "one")), answers)

    assert gate.verdict == "inconclusive"
    assert "all rows are of one group" in gate.sentence


def g5(right: np.ndarray, slices: dict[str, np.ndarray], floor: float | None) -> Gate:
    label, answers = right_answers(right)
    return judge_slices(Wanted(gates=Gates(slice_minimum=floor)), some_rows(label, slices=slices), answers)


def test_g5_without_a_floor_is_skipped_and_says_so() -> None:
    gate = g5(right_and_wrong(50, 0), {"day": np.array(["a", "b"] * 25)}, None)

    assert gate.verdict == "skipped"
    assert "slice_minimum is not set" in gate.sentence


def test_g5_names_the_slice_that_fails() -> None:
    right = np.concatenate([right_and_wrong(98, 2), right_and_wrong(60, 40)])

    gate = g5(right, {"time": np.repeat(["day", "night"], 100)}, 0.8)

    assert gate.verdict == "fail"
    assert "'night'" in gate.sentence
    assert gate.value == pytest.approx(0.6)


def test_g5_looks_at_every_slice_column() -> None:
    right = np.concatenate([right_and_wrong(98, 2), right_and_wrong(60, 40)])
    slices = {"all": np.full(200, "x"), "time": np.repeat(["day", "night"], 100)}

    assert "time = 'night'" in g5(right, slices, 0.8).sentence


def test_g5_with_a_small_slice_is_inconclusive() -> None:
    gate = g5(right_and_wrong(129, 0), {"time": np.array(["day"] * 100 + ["night"] * 29)}, 0.8)

    assert gate.verdict == "inconclusive"
    assert "Under 30 rows: night" in gate.sentence


def test_g5_passes_when_every_lower_bound_reaches_the_floor() -> None:
    assert g5(right_and_wrong(200, 0), {"time": np.repeat(["day", "night"], 100)}, 0.9).verdict == "pass"


@pytest.mark.parametrize(("ceiling", "verdict"), [(2.0, "pass"), (0.8, "fail"), (0.9, "inconclusive")])
def test_g5_of_a_regression_judges_mean_absolute_errors(ceiling: float, verdict: str) -> None:
    # Absolute errors are uniform on [0, 1] by day and on [0, 1.8] by night.
    error = np.random.default_rng(2).random(400) * np.repeat([1.0, 1.8], 200)
    rows = some_rows(np.zeros(400), [], slices={"time": np.repeat(["day", "night"], 200)})
    wanted = Wanted(goal=Goal(question="q", task="regression", metric="mae"), gates=Gates(slice_maximum=ceiling))

    gate = judge_slices(wanted, rows, Answers(value=error))

    assert gate.verdict == verdict
    assert "'night'" in gate.sentence


def test_twenty_healthy_slices_hardly_ever_fail_and_a_sick_one_does() -> None:
    # The research's table: true .90, floor .85, 60 rows each: at most .1 %; here 300 sets of twenty.
    rng = np.random.default_rng(3)
    slices = {"s": np.repeat([f"s{i:02}" for i in range(20)], 60)}

    healthy = [g5(rng.random(1200) < 0.9, slices, 0.85).verdict == "fail" for _ in range(100)]
    sick = [g5(rng.random(1200) < np.repeat([0.6] + [0.95] * 19, 60), slices, 0.85).verdict == "fail" for _ in range(30)]

    assert np.mean(healthy) <= 0.02
    assert np.mean(sick) > 0.9


def test_g7_without_champion_is_skipped_as_first() -> None:
    label, answers = right_answers(right_and_wrong(10, 0))

    gate = judge_champion(Wanted(), some_rows(label), answers, None)

    assert gate.verdict == "skipped"
    assert "First" in gate.sentence


def g7(only_new: int, only_old: int, n: int) -> Gate:
    new = right_and_wrong(n - only_old, only_old)
    old = np.array([False] * only_new + [True] * (n - only_new))
    label, answers = right_answers(new)
    return judge_champion(Wanted(), some_rows(label), answers, right_answers(old)[1])


@pytest.mark.parametrize(("only_new", "only_old", "verdict"), [(80, 40, "pass"), (60, 60, "inconclusive"), (10, 90, "fail")])
def test_g7_is_a_paired_noninferiority_test(only_new: int, only_old: int, verdict: str) -> None:
    # 60/60 by hand: d = 0, se = sqrt(121) / 1002 = .0110, so the bounds are -.0181 and +.0181 about a margin of .01.
    assert g7(only_new, only_old, 1000).verdict == verdict


def test_g7_inconclusive_says_how_many_rows_it_needs() -> None:
    # 5 % discordant, margin 1 pp: 0.05 * (1.645 + 0.842)^2 / 0.01^2 = 3092 rows for 80 % power.
    gate = g7(25, 25, 1000)

    assert gate.verdict == "inconclusive"
    assert "Needs about 3092 rows, had 1000" in gate.sentence


@pytest.mark.parametrize(
    ("n", "d", "delta", "passes", "fails"),
    [
        (500, 0.05, -0.01, 5.0, 4.2),  # the research's table, per cent
        (500, 0.05, 0.0, 25.3, 0.3),
        (2000, 0.05, -0.01, 5.1, 4.7),
        (2000, 0.05, 0.0, 63.7, 0.0),
        (2000, 0.05, -0.02, None, None),
    ],
)
def test_g7_of_accuracy_passes_and_fails_as_often_as_its_table(
    n: int, d: float, delta: float, passes: float | None, fails: float | None
) -> None:
    # Exact: every (b, c) of the trinomial that has a chance of 1e-5 or more, judged by the gate's own function.
    gained, lost = (d + delta) / 2, (d - delta) / 2
    chance = np.zeros(2)
    for b in range(int(binom.ppf(1e-5, n, gained)), int(binom.ppf(1 - 1e-5, n, gained)) + 1):
        rest = lost / (1 - gained)
        for c in range(int(binom.ppf(1e-5, n - b, rest)), int(binom.ppf(1 - 1e-5, n - b, rest)) + 1):
            value, total = (b - c) / (n + 2), n + 2
            half = 1.6448536 * np.sqrt((b + c + 1) - (b - c) ** 2 / total) / total
            p = binom.pmf(b, n, gained) * binom.pmf(c, n - b, rest)
            chance += p * np.array([value - half > -0.01, value + half < -0.01])

    if passes is not None:
        assert 100 * chance == pytest.approx([passes, fails], abs=0.15)
    else:
        assert chance[0] < 0.005


def test_the_exact_sums_use_the_gates_own_bounds() -> None:
    new, old = right_and_wrong(970, 30), np.roll(right_and_wrong(960, 40), -20)
    b, c = int((new & ~old).sum()), int((old & ~new).sum())

    delta = paired_difference(new, old)

    half = 1.6448536 * np.sqrt((b + c + 1) - (b - c) ** 2 / 1002) / 1002
    assert [delta.lower, delta.upper] == pytest.approx([(b - c) / 1002 - half, (b - c) / 1002 + half], abs=1e-9)


@pytest.mark.parametrize("metric", ["auc", "rmse"])
def test_g7_passes_at_most_six_per_cent_of_models_that_are_a_whole_margin_worse(metric: str) -> None:
    # 600 sets know a share of 5 % to .9 points, and the seed is fixed. The margin is the true difference, from a million rows.
    def models(rng: np.random.Generator, n: int) -> tuple[np.ndarray, Answers, Answers]:
        if metric == "rmse":
            label = rng.normal(size=n)
            shared, own = rng.normal(size=n), rng.normal(size=n)
            return label, Answers(value=label + shared + 0.5 * own), Answers(value=label + shared + 0.3 * rng.normal(size=n))
        label = (rng.random(n) < 0.5).astype(np.int64)
        base = rng.normal(size=n) + 1.5 * label
        return label, Answers(value=base + 0.6 * rng.normal(size=n)), Answers(value=base + 0.3 * rng.normal(size=n))

    task = "regression" if metric == "rmse" else "anomaly"
    rng = np.random.default_rng(4)
    label, new, old = models(rng, 1_000_000)
    from trainer.metrics import METRICS

    margin = abs(METRICS[metric](label, new) - METRICS[metric](label, old))
    wanted = Wanted(goal=Goal(question="q", task=task, metric=metric, noninferior_margin=margin))  # type: ignore[arg-type]
    passed = []
    for _ in range(600):
        label, new, old = models(rng, 400)
        passed.append(judge_champion(wanted, some_rows(label), new, old).verdict == "pass")

    assert np.mean(passed) <= 0.06


def test_g7_of_equal_losses_passes() -> None:
    label = np.random.default_rng(5).normal(size=100)
    answers = Answers(value=label + 0.1)

    gate = judge_champion(Wanted(goal=Goal(question="q", task="regression", metric="rmse")), some_rows(label, []), answers, answers)

    assert (gate.verdict, gate.value) == ("pass", 0.0)


def test_g7_fails_a_model_whose_answers_are_no_numbers() -> None:
    label = np.zeros(40)
    wanted = Wanted(goal=Goal(question="q", task="regression", metric="rmse"))

    gate = judge_champion(wanted, some_rows(label, []), Answers(value=np.full(40, np.nan)), Answers(value=label))

    assert gate.verdict == "fail"


def probabilities(temperature: float) -> tuple[np.ndarray, Answers]:
    rng = np.random.default_rng(6)
    odds = rng.normal(0, 1.5, 2000)
    label = (rng.random(2000) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    shown = 1 / (1 + np.exp(-temperature * odds))
    return label, Answers(probabilities=np.stack([1 - shown, shown], axis=1))


@pytest.mark.parametrize(("temperature", "verdict"), [(1.0, "pass"), (1.5, "fail")])
def test_g6_fails_a_model_that_is_too_sure(temperature: float, verdict: str) -> None:
    label, answers = probabilities(temperature)

    gate = judge_calibration(Wanted(gates=Gates(calibration="gate")), some_rows(label), answers)

    assert gate.verdict == verdict
    assert gate.limit == pytest.approx(1.96, abs=1e-3)


def test_g6_is_only_reported_unless_it_is_asked_to_judge() -> None:
    label, answers = probabilities(3.0)

    gate = judge_calibration(Wanted(), some_rows(label), answers)

    assert gate.verdict == "skipped"
    assert gate.sentence.startswith("Only reported (gates.calibration): Spiegelhalter's z is ")


def test_g6_of_numbers_is_skipped() -> None:
    assert judge_calibration(Wanted(), some_rows(np.zeros(30), []), Answers(value=np.zeros(30))).verdict == "skipped"


def test_g6_of_even_probabilities_is_inconclusive() -> None:
    label = np.arange(60) % 2

    gate = judge_calibration(Wanted(gates=Gates(calibration="gate")), some_rows(label), Answers(probabilities=np.full((60, 2), 0.5)))

    assert gate.verdict == "inconclusive"


def test_a_candidate_has_a_verdict_of_each_gate_in_order() -> None:
    label, answers = right_answers(right_and_wrong(95, 5))
    rows = some_rows(label)

    gates = judge_candidate(Wanted(goal=MINIMUM), rows, answers, lambda _: answers, None)

    assert [gate.gate for gate in gates] == ["G4", "G5", "G6", "G7", "G8", "G9", "G10"]
    assert [gate.verdict for gate in gates] == ["pass", "skipped", "skipped", "skipped", "skipped", "skipped", "skipped"]
    assert all(gate.sentence.endswith(".") for gate in gates)


def test_a_candidate_that_answers_no_numbers_fails_and_nothing_breaks() -> None:
    label = np.arange(60) % 2
    broken = Answers(probabilities=np.full((60, 2), np.nan))
    limits = Gates(slice_minimum=0.5, calibration="gate", robustness_drop={"noise": 0.1}, fairness=["s"], fairness_gap=0.1)
    rows = some_rows(label, slices={"s": np.array(["a", "b"] * 30)})

    gates = judge_candidate(Wanted(goal=MINIMUM, gates=limits), rows, broken, lambda _: broken, None)

    assert {gate.gate: gate.verdict for gate in gates} == {
        "G4": "fail",
        "G5": "inconclusive",
        "G6": "inconclusive",
        "G7": "skipped",
        "G8": "skipped",
        "G9": "skipped",
        "G10": "skipped",
    }


def failed() -> list[Gate]:
    return [g4(10, 90, MINIMUM)]


def test_an_override_keeps_the_gates_sentence_and_its_verdict() -> None:
    gates = failed()

    outcome, used, blocking = overrule(gates, [Override(gate="G4", reason="bad on purpose")], [])

    assert outcome[0].verdict == "overridden"
    assert outcome[0].sentence == f"{gates[0].sentence} Overridden (fail): bad on purpose"
    assert used == [Override(gate="G4", reason="bad on purpose")]
    assert blocking == []


def test_an_override_that_was_not_needed_is_not_recorded() -> None:
    outcome, used, blocking = overrule([g4(100, 0, MINIMUM)], [Override(gate="G4", reason="just in case")], [])

    assert outcome[0].verdict == "pass"
    assert (used, blocking) == ([], [])


def test_inconclusive_blocks_unless_the_project_allows_it() -> None:
    gates = [g4(5, 0, MINIMUM)]

    assert overrule(gates, [], [])[2] == gates
    assert overrule(gates, [], ["G4"])[2] == []


def test_a_failed_gate_blocks_even_where_inconclusive_is_allowed() -> None:
    gates = failed()

    assert overrule(gates, [], ["G4"])[2] == gates


@pytest.mark.parametrize(("gate", "reason", "words"), [("G99", "why", "'G99' cannot be overridden"), ("G4", "  ", "needs a reason")])
def test_an_override_names_a_known_gate_and_a_reason(gate: str, reason: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_overrides([Override(gate=gate, reason=reason)])


def test_every_gate_can_be_overridden() -> None:
    check_overrides([Override(gate=gate, reason="why") for gate in KNOWN_GATES])

    assert len(KNOWN_GATES) == 10


@pytest.mark.parametrize("groups", [1, 2, 9])
def test_g6_of_few_groups_is_inconclusive_however_small_z_is(groups: int) -> None:
    # One group counts as one row: z of a model that is far too sure falls below any limit.
    label, answers = probabilities(3.0)

    gate = judge_calibration(Wanted(gates=Gates(calibration="gate")), some_rows(label, group=np.arange(len(label)) % groups), answers)

    assert gate.verdict == "inconclusive"
    assert "Not judged: " in gate.sentence


def test_g5_of_a_slice_with_few_groups_is_inconclusive() -> None:
    label, answers = right_answers(right_and_wrong(400, 0))
    names = np.repeat(["many", "few"], 200)
    group = np.where(names == "many", np.arange(400) % 20, 20 + np.arange(400) % 5)

    gate = judge_slices(Wanted(gates=Gates(slice_minimum=0.5)), some_rows(label, slices={"site": names}, group=group), answers)

    assert gate.verdict == "inconclusive"
    assert "Under 30 rows or 10 groups: few." in gate.sentence
