import time

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from edgefleet.delong import area
from trainer.answers import Answers
from trainer.bootstrap import Interval, bootstrap, metric_interval, metric_intervals, paired_interval
from trainer.metrics import METRICS, mean_of
from trainer.settings import Goal

GOAL = Goal(question="q")


def scores(rng: np.random.Generator, n: int, share: float = 0.4) -> tuple[np.ndarray, Answers]:
    label = (rng.random(n) < share).astype(np.int64)
    found = 1 / (1 + np.exp(-(rng.normal(size=n) + 1.5 * label - 0.75)))
    return label, Answers(probabilities=np.stack([1 - found, found], axis=1))


def residuals(rng: np.random.Generator, n: int) -> tuple[np.ndarray, Answers]:
    label = rng.normal(size=n)
    return label, Answers(value=label + 0.5 * rng.normal(size=n))


def coverage(inside: list[list[bool]]) -> np.ndarray:
    shares: np.ndarray = np.mean(np.array(inside, float), axis=0)
    return shares


@pytest.mark.conversions
def test_intervals_of_classification_metrics_cover_the_truth() -> None:
    # 600 sets know a coverage to 0.9 points. 1,500 other sets covered 93.8 % (average precision) to 95.5 % (f1).
    names = ["balanced_accuracy", "f1", "log_loss", "brier", "auc", "average_precision"]
    rng = np.random.default_rng(11)
    label, answers = scores(rng, 1_000_000)
    truth = {name: METRICS[name](label, answers) for name in names}
    inside = []
    for seed in range(600):
        found = metric_intervals(names, *scores(rng, 250), None, GOAL, seed)
        inside.append([found[name].low <= truth[name] <= found[name].high for name in names])

    covered = dict(zip(names, coverage(inside), strict=True))

    assert all(0.93 <= share <= 0.97 for share in covered.values()), covered


def test_intervals_of_regression_metrics_cover_the_truth() -> None:
    # At 150 rows 1,500 sets covered 92.6 % (rmse) to 93.5 % (mae): the bootstrap is a little short of rows there.
    truth = {"mae": 0.5 * np.sqrt(2 / np.pi), "rmse": 0.5, "r2": 0.75}
    rng = np.random.default_rng(12)
    inside = []
    for seed in range(400):
        found = metric_intervals(list(truth), *residuals(rng, 400), None, GOAL, seed)
        inside.append([found[name].low <= truth[name] <= found[name].high for name in truth])

    covered = dict(zip(truth, coverage(inside), strict=True))

    assert all(0.93 <= share <= 0.97 for share in covered.values()), covered


def test_whole_groups_are_drawn_so_that_alike_rows_do_not_shrink_the_interval() -> None:
    # 60 groups of 5 rows that share half of their error's variance: drawing rows would cover about 80 %.
    rng = np.random.default_rng(13)
    groups = np.repeat(np.arange(60), 5)
    grouped: list[bool] = []
    rows: list[bool] = []
    for seed in range(300):
        error = np.repeat(rng.normal(size=60), 5) * np.sqrt(0.5) + rng.normal(size=300) * np.sqrt(0.5)
        for found, share in ((grouped, groups), (rows, None)):
            interval = metric_interval("rmse", np.zeros(300), Answers(value=error), share, GOAL, seed)
            found.append(interval.low <= 1.0 <= interval.high)

    assert 0.92 <= np.mean(grouped) <= 0.97  # 60 groups: the bootstrap is a little short
    assert np.mean(rows) < 0.9


def test_delong_is_the_area_and_its_jackknife_variance() -> None:
    rng = np.random.default_rng(1)
    label, answers = scores(rng, 300)
    found = area(np.round(answers.score, 2), label == 1)
    score = np.round(answers.score, 2)

    # The jackknife over positives, and over negatives, is what the two variance terms are.
    left_out = [roc_auc_score(np.delete(label, i), np.delete(score, i)) for i in range(300)]
    terms = 0.0
    for kind in (0, 1):
        part = np.array(left_out)[label == kind]
        terms += (len(part) - 1) / len(part) * np.square(part - part.mean()).sum()

    assert found.value == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    assert found.error == pytest.approx(np.sqrt(terms), rel=1e-9)


def test_delong_and_the_bootstrap_agree() -> None:
    label, answers = scores(np.random.default_rng(2), 1000)

    quick = metric_interval("auc", label, answers, None, GOAL, 0)
    slow = metric_interval("auc", label, answers, np.arange(1000), GOAL, 0)

    assert (quick.method, slow.method) == ("delong", "bootstrap")
    # Half widths are .026; 2,000 resamples know an end to about 5 % of that.
    assert [quick.low, quick.high] == pytest.approx([slow.low, slow.high], abs=0.003)


def test_the_same_seed_gives_the_same_interval() -> None:
    label, answers = residuals(np.random.default_rng(3), 100)

    assert metric_interval("r2", label, answers, None, GOAL, 5) == metric_interval("r2", label, answers, None, GOAL, 5)
    assert metric_interval("r2", label, answers, None, GOAL, 5) != metric_interval("r2", label, answers, None, GOAL, 6)


def test_few_rows_have_a_reason() -> None:
    label, answers = residuals(np.random.default_rng(4), 29)

    assert metric_interval("mae", label, answers, None, GOAL, 0).reason == "29 rows are fewer than 30"


@pytest.mark.parametrize(("groups", "reason"), [(1, "all rows are of one group"), (9, "9 groups are fewer than 10"), (10, "")])
def test_few_groups_have_a_reason(groups: int, reason: str) -> None:
    label, answers = residuals(np.random.default_rng(4), 90)

    assert metric_interval("mae", label, answers, np.arange(90) % groups, GOAL, 0).reason == reason


def test_accuracy_of_one_group_has_a_reason() -> None:
    label, answers = scores(np.random.default_rng(5), 90)

    interval = metric_interval("accuracy", label, answers, np.zeros(90), GOAL, 0)

    assert interval.reason == "all rows are of one group"
    assert interval.upper - interval.lower > 0.5


@pytest.mark.parametrize(("positives", "conclusive"), [(49, False), (50, True)])
def test_auc_of_fewer_than_fifty_positives_has_a_reason(positives: int, conclusive: bool) -> None:
    label = (np.arange(400) < positives).astype(np.int64)
    found = np.random.default_rng(6).random(400) * 0.5 + 0.4 * label
    answers = Answers(probabilities=np.stack([1 - found, found], axis=1))

    interval = metric_interval("auc", label, answers, None, GOAL, 0)

    assert (interval.reason == "") is conclusive
    assert conclusive or (interval.lower, interval.upper) == (0.0, 1.0)


def test_a_perfect_order_is_bounded_by_the_rarer_class() -> None:
    label = (np.arange(200) < 60).astype(np.int64)
    answers = Answers(value=label.astype(np.float64))

    interval = metric_interval("auc", label, answers, None, GOAL, 0)

    # Wilson's one-sided bound of 60 right of 60: 60 / (60 + 1.6449^2) = .9569.
    assert (interval.value, interval.upper) == (1.0, 1.0)
    assert interval.lower == pytest.approx(60 / (60 + 1.6448536**2), abs=1e-6)


def test_all_rows_right_do_not_make_f1_certain() -> None:
    label = np.array([0] * 60 + [1] * 40)

    interval = metric_interval("f1", label, Answers(probabilities=np.eye(2)[label]), None, GOAL, 0)

    assert interval.lower == pytest.approx(40 / (40 + 1.6448536**2), abs=1e-6)
    assert interval.upper == 1.0


def test_equal_losses_have_no_spread_to_judge_by() -> None:
    interval = metric_interval("mae", np.zeros(50), Answers(value=np.ones(50)), None, GOAL, 0)

    assert interval.value == 1.0
    assert "no spread" in interval.reason
    assert (interval.lower, interval.upper) == (0.0, np.inf)


def test_equal_answers_differ_by_exactly_nothing() -> None:
    label, answers = residuals(np.random.default_rng(7), 100)

    delta = paired_interval("rmse", label, answers, answers, None, GOAL, 0)

    assert (delta.value, delta.lower, delta.upper) == (0.0, 0.0, 0.0)


def test_a_smaller_loss_is_a_positive_difference() -> None:
    label, answers = residuals(np.random.default_rng(8), 200)
    worse = Answers(value=(2.0 * answers.score - label).astype(np.float64))

    delta = paired_interval("rmse", label, answers, worse, None, GOAL, 0)

    assert delta.value == pytest.approx(METRICS["rmse"](label, answers))  # twice the error minus the error
    assert delta.lower > 0


def test_a_metric_that_most_resamples_lack_is_left_open() -> None:
    def sometimes(weights: np.ndarray) -> np.ndarray:
        return np.where(weights[:, 0] == 1, 1.0, np.nan)

    interval = bootstrap({"m": sometimes}, 50, None, 0)["m"]

    assert "not defined in every resample" in interval.reason
    assert (interval.lower, interval.upper) == (-np.inf, np.inf)


def test_a_hundred_thousand_rows_and_more_are_resampled_less_often() -> None:
    losses = np.random.default_rng(9).exponential(size=500_000)

    interval: Interval = bootstrap({"m": mean_of(losses)}, len(losses), None, 0)["m"]

    # The standard error of the mean is 1 / sqrt(n); 400 resamples know it to 3.5 %, five times that is given.
    assert interval.upper - interval.value == pytest.approx(1.645 / np.sqrt(500_000), rel=0.2)


def test_auc_of_sixteen_thousand_grouped_rows_takes_less_than_ten_seconds() -> None:
    label, answers = scores(np.random.default_rng(10), 16_000)
    began = time.process_time()

    metric_interval("auc", label, answers, np.arange(16_000) // 2, GOAL, 0)

    assert time.process_time() - began < 10


@pytest.mark.parametrize(("groups", "reason"), [(3, "3 groups are fewer than 10"), (10, "")])
def test_accuracy_and_its_difference_over_few_groups_have_a_reason(groups: int, reason: str) -> None:
    label, answers = scores(np.random.default_rng(14), 300)
    group = np.arange(300) % groups

    assert metric_interval("accuracy", label, answers, group, GOAL, 0).reason == reason
    assert paired_interval("accuracy", label, answers, scores(np.random.default_rng(15), 300)[1], group, GOAL, 0).reason == reason


def test_equal_answers_to_few_rows_have_a_reason() -> None:
    label, answers = residuals(np.random.default_rng(16), 20)

    assert paired_interval("rmse", label, answers, answers, None, GOAL, 0).reason == "20 rows are fewer than 30"


@pytest.mark.parametrize(("metric", "dearest"), [("f1", 1.0), ("balanced_accuracy", 1.0), ("mean_cost", 5.0)])
def test_equal_decisions_of_two_models_are_no_proof_beyond_the_rarest_class(metric: str, dearest: float) -> None:
    label = np.array([0] * 60 + [1] * 40)
    one, other = (Answers(probabilities=np.eye(2)[label] * sure + (1 - sure) / 2) for sure in (0.8, 0.9))
    goal = Goal(question="q", costs={"yes": {"no": 5.0}})

    delta = paired_interval(metric, label, one, other, None, goal, 0, ["no", "yes"])

    # Wilson's one-sided bound of 0 of 40: 1.6449^2 / (40 + 1.6449^2).
    assert delta.value == 0
    assert delta.upper == -delta.lower == pytest.approx(dearest * 1.6448536**2 / (40 + 1.6448536**2), abs=1e-6)
