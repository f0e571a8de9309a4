"""Every metric against scikit-learn's own function: 1e-12 is a few thousand rounding errors of sums of some hundred terms."""

from typing import get_args

import numpy as np
import pytest
from sklearn import metrics as oracle

from edgefleet.errors import ConfigError, InputError
from trainer.answers import Answers
from trainer.metrics import METRICS, cost_matrix, metrics_for
from trainer.settings import Goal, Metric

CLOSE = 1e-12
COSTS = Goal(question="q", costs={"b": {"a": 5.0}})


def case(classes: int, weighted: bool, seed: int = 0, n: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    rng = np.random.default_rng(seed)
    label = rng.integers(classes, size=n)
    # Rounded, so that many scores are tied; then normalised again, as probabilities must be.
    raw = np.round(rng.dirichlet(np.ones(classes), n) + 0.5 * np.eye(classes)[label], 1) + 0.05
    return label, raw / raw.sum(axis=1, keepdims=True), rng.random(n) + 0.1 if weighted else None


def test_the_table_holds_every_metric_of_the_settings() -> None:
    assert set(METRICS) == set(get_args(Metric))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_classification_metrics_equal_scikit_learns(classes: int, weighted: bool) -> None:
    label, shares, weight = case(classes, weighted)
    answers = Answers(probabilities=shares)
    decided = shares.argmax(axis=1)
    binary = classes == 2
    rank = shares[:, 1] if binary else shares
    onehot = label if binary else np.eye(classes)[label]
    expected = {
        "accuracy": oracle.accuracy_score(label, decided, sample_weight=weight),
        "balanced_accuracy": oracle.balanced_accuracy_score(label, decided, sample_weight=weight),
        "f1": oracle.f1_score(label, decided, average="binary" if binary else "macro", sample_weight=weight),
        "auc": oracle.roc_auc_score(label, rank, multi_class="ovr", average="macro", sample_weight=weight),
        "average_precision": oracle.average_precision_score(onehot, rank, average="macro", sample_weight=weight),
        "log_loss": oracle.log_loss(label, shares, sample_weight=weight),
        "brier": oracle.brier_score_loss(label, rank, sample_weight=weight),
    }

    values = {name: METRICS[name](label, answers, weight=weight) for name in expected}

    assert values == pytest.approx(expected, abs=CLOSE, rel=0)


@pytest.mark.parametrize("weighted", [False, True])
def test_regression_metrics_equal_scikit_learns(weighted: bool) -> None:
    rng = np.random.default_rng(1)
    label = rng.normal(size=300)
    value = label + rng.normal(scale=0.5, size=300)
    weight = rng.random(300) if weighted else None

    values = {name: METRICS[name](label, Answers(value=value), weight=weight) for name in ("rmse", "mae", "r2")}

    assert values == pytest.approx(
        {
            "rmse": oracle.root_mean_squared_error(label, value, sample_weight=weight),
            "mae": oracle.mean_absolute_error(label, value, sample_weight=weight),
            "r2": oracle.r2_score(label, value, sample_weight=weight),
        },
        abs=CLOSE,
        rel=0,
    )


@pytest.mark.parametrize(("value", "expected"), [([2.0, 2.0, 2.0], 1.0), ([2.0, 2.0, 3.0], 0.0)])
def test_r2_of_a_constant_target_is_scikit_learns_convention(value: list[float], expected: float) -> None:
    label = np.array([2.0, 2.0, 2.0])

    assert METRICS["r2"](label, Answers(value=np.array(value))) == expected == oracle.r2_score(label, value)


def test_anomaly_scores_rank_by_the_strange_rows() -> None:
    rng = np.random.default_rng(2)
    label = (rng.random(200) < 0.2).astype(np.int64)
    score = np.round(rng.normal(size=200) + label, 1)
    answers = Answers(value=score, threshold=1.0)

    assert METRICS["auc"](label, answers) == pytest.approx(oracle.roc_auc_score(label, score), abs=CLOSE)
    assert METRICS["average_precision"](label, answers) == pytest.approx(oracle.average_precision_score(label, score), abs=CLOSE)
    assert METRICS["f1"](label, answers) == pytest.approx(oracle.f1_score(label, score >= 1.0), abs=CLOSE)


def test_the_first_class_can_be_the_positive_one() -> None:
    label, shares, _ = case(2, weighted=False)
    answers = Answers(probabilities=shares, positive=0, threshold=0.3)
    decided = np.where(shares[:, 0] >= 0.3, 0, 1)

    assert METRICS["f1"](label, answers) == pytest.approx(oracle.f1_score(label, decided, pos_label=0), abs=CLOSE)
    assert METRICS["auc"](label, answers) == pytest.approx(oracle.roc_auc_score(label == 0, shares[:, 0]), abs=CLOSE)


def test_a_missed_class_costs_what_the_goal_says() -> None:
    # b answered as a costs 5, a answered as b the default 1: (5 + 1) / 4.
    answers = Answers(probabilities=np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.1, 0.9]]))

    assert METRICS["mean_cost"](np.array([1, 0, 0, 1]), answers, ["a", "b"], COSTS) == 1.5


def test_costs_of_an_unknown_class_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"goal\.costs\.b\.a: the classes are a, c"):
        cost_matrix(["a", "c"], COSTS)


def test_a_negative_cost_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 0"):
        cost_matrix(["a", "b"], Goal(question="q", costs={"a": {"b": -1.0}}))


def test_auc_of_one_class_is_not_defined() -> None:
    assert np.isnan(METRICS["auc"](np.ones(5, np.int64), Answers(probabilities=np.full((5, 2), 0.5))))


def test_answers_that_are_no_numbers_are_refused_with_their_count() -> None:
    with pytest.raises(InputError, match="1 of 3 answers are not finite"):
        METRICS["rmse"](np.zeros(3), Answers(value=np.array([0.0, np.nan, 1.0])))


def test_no_rows_have_no_metric() -> None:
    with pytest.raises(InputError, match="0 labels"):
        METRICS["rmse"](np.zeros(0), Answers(value=np.zeros(0)))


@pytest.mark.parametrize(
    ("task", "answers", "names"),
    [
        ("rul", Answers(value=np.zeros(1)), ["rmse", "mae", "r2"]),
        ("anomaly", Answers(value=np.zeros(1)), ["auc", "average_precision"]),
        (
            "anomaly",
            Answers(value=np.zeros(1), threshold=0.0),
            ["accuracy", "balanced_accuracy", "f1", "auc", "average_precision", "mean_cost"],
        ),
    ],
)
def test_each_task_has_the_metrics_that_fit_it(task: str, answers: Answers, names: list[str]) -> None:
    assert metrics_for(task, answers) == names


def test_a_resample_is_the_rows_drawn() -> None:
    label, shares, _ = case(3, weighted=False, n=60)
    rng = np.random.default_rng(3)
    drawn = rng.integers(60, size=(4, 60))
    weights = np.stack([np.bincount(row, minlength=60) for row in drawn]).astype(np.float64)

    for name in ("accuracy", "balanced_accuracy", "f1", "auc", "average_precision", "log_loss", "brier"):
        resampled = METRICS[name].replicate(label, Answers(probabilities=shares))(weights)
        again = [METRICS[name](label[row], Answers(probabilities=shares[row])) for row in drawn]
        assert resampled == pytest.approx(again, abs=CLOSE), name
