import numpy as np
import pytest

from edgefleet.errors import InputError
from trainer.answers import Answers
from trainer.metrics import METRICS
from trainer.settings import Goal
from trainer.threshold import anomaly_threshold, binary_costs, choose_threshold, false_alarms


def rows(seed: int = 0, n: int = 500) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random(n)
    return rng.random(n) < truth, np.round(truth, 3)


def test_the_threshold_has_the_least_cost_of_all_there_are() -> None:
    positive, shares = rows()
    goal = Goal(question="q", costs={"yes": {"no": 4.0}})

    found = choose_threshold(positive, shares, *binary_costs(goal, ["no", "yes"], 1))

    def cost(threshold: float) -> float:
        answers = Answers(probabilities=np.stack([1 - shares, shares], axis=1), threshold=threshold)
        return METRICS["mean_cost"](positive.astype(np.int64), answers, ["no", "yes"], goal)

    assert found.cost == pytest.approx(cost(found.threshold), abs=1e-12)
    assert found.cost_at_half == pytest.approx(cost(0.5), abs=1e-12)
    assert found.cost <= min(cost(t) for t in np.linspace(0, 1.001, 2003)) + 1e-12
    assert all(y == pytest.approx(cost(t), abs=1e-12) for t, y in found.curve)


def test_dear_misses_lower_the_threshold_to_where_theory_has_it() -> None:
    # Calibrated probabilities: the best threshold is fp / (fp + fn) = 1 / 5.
    positive, shares = rows(1, 20_000)

    found = choose_threshold(positive, shares, 1.0, 4.0)

    assert found.threshold == pytest.approx(0.2, abs=0.03)
    assert found.low <= 0.2 <= found.high
    assert found.high - found.low < 0.15


def test_equally_good_thresholds_give_the_middle_of_the_widest_run() -> None:
    # (.2, .8] separates the classes.
    found = choose_threshold(np.array([False, False, True]), np.array([0.1, 0.2, 0.8]), 1.0, 1.0)

    assert found.threshold == 0.5


def test_free_misses_answer_nothing_positive_even_at_probability_one() -> None:
    found = choose_threshold(np.array([False, True]), np.array([1.0, 1.0]), 1.0, 0.0)

    assert found.threshold > 1.0
    assert found.cost == 0.0


def test_free_false_alarms_answer_everything_positive() -> None:
    found = choose_threshold(np.array([False, True]), np.array([0.4, 0.3]), 0.0, 1.0)

    assert found.threshold == pytest.approx(0.15)
    assert found.cost == 0.0


def test_the_positive_class_may_be_the_first() -> None:
    goal = Goal(question="q", costs={"fault": {"ok": 9.0}})

    assert binary_costs(goal, ["fault", "ok"], 0) == (1.0, 9.0)


def test_whole_groups_widen_the_interval_of_the_threshold() -> None:
    rng = np.random.default_rng(2)
    shares = np.repeat(rng.random(40), 20)
    positive = np.repeat(rng.random(40), 20) < shares

    alone = choose_threshold(positive, shares, 1.0, 2.0)
    grouped = choose_threshold(positive, shares, 1.0, 2.0, groups=np.repeat(np.arange(40), 20))

    assert grouped.high - grouped.low > alone.high - alone.low


def test_probabilities_outside_zero_and_one_are_refused() -> None:
    with pytest.raises(InputError, match="in \\[0, 1\\]"):
        choose_threshold(np.array([True]), np.array([np.nan]), 1.0, 1.0)


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.05, 0.1, 0.5])
@pytest.mark.parametrize("digits", [1, 8])  # with and without ties
def test_at_most_the_allowed_share_of_normal_rows_is_flagged(fraction: float, digits: int) -> None:
    scores = np.round(np.random.default_rng(3).normal(size=300), digits)

    threshold = anomaly_threshold(scores, fraction)

    assert (scores >= threshold).mean() <= fraction
    lower = np.unique(scores[scores < threshold])[-1]  # the next lower threshold would flag too many
    assert (scores >= lower).mean() > fraction


def test_a_tenth_of_thirty_rows_is_three() -> None:
    assert (np.arange(30.0) >= anomaly_threshold(np.arange(30.0), 0.1)).sum() == 3


def test_scores_that_are_no_numbers_have_no_threshold() -> None:
    with pytest.raises(InputError, match="finite scores"):
        anomaly_threshold(np.array([1.0, np.inf]), 0.1)


def test_the_share_of_false_alarms_comes_with_wilsons_interval() -> None:
    # 1 of 10, z = 1.96: .0179 to .4042 (Brown, Cai and DasGupta).
    found = false_alarms(np.arange(10.0), 9.0)

    assert found == pytest.approx({"value": 0.1, "low": 0.0179, "high": 0.4042, "n": 10}, abs=1e-4)


def test_scores_that_differ_in_their_last_bit_are_told_apart() -> None:
    # The middle of two neighbouring floats is one of them, here the lower: it would flag five rows where one may be.
    above = float(np.nextafter(1.0, 2.0))
    scores = np.array([0.5] * 5 + [1.0] * 4 + [above])

    assert (scores >= anomaly_threshold(scores, 0.1)).sum() == 1


def test_probabilities_that_differ_in_their_last_bit_are_told_apart() -> None:
    below = float(np.nextafter(np.nextafter(0.5, 0.0), 0.0))
    probability, positive = np.array([below, np.nextafter(below, 1.0)]), np.array([False, True])

    for shift in (0.0, 2.0**-54):  # the middle rounds to the even one of the two, which is the lower one of every second pair
        moved = probability + shift
        found = choose_threshold(positive, moved, 1.0, 1.0)

        assert found.cost == 0
        assert ((moved >= found.threshold) == positive).all()
