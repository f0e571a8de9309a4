"""Laws that hold for any labels, scores and weights."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet.delong import area
from trainer.answers import Answers
from trainer.calibration import calibrate, fit_calibrator
from trainer.gates.leakage import row_hashes
from trainer.intervals import holm
from trainer.metrics import METRICS
from trainer.threshold import anomaly_threshold, choose_threshold

scores = st.integers(0, 20).map(lambda value: value / 20)  # coarse, so that ties are common
cases = st.lists(st.tuples(scores, st.booleans()), min_size=2, max_size=60).filter(lambda rows: 0 < sum(hit for _, hit in rows) < len(rows))


def arrays(rows: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([score for score, _ in rows]), np.array([hit for _, hit in rows])


def answered(score: np.ndarray) -> Answers:
    return Answers(probabilities=np.stack([1 - score, score], axis=1))


@given(cases)
def test_auc_is_the_share_of_pairs_in_the_right_order(rows: list[tuple[float, bool]]) -> None:
    score, hit = arrays(rows)
    pairs = np.subtract.outer(score[hit], score[~hit])

    share = float((pairs > 0).mean() + 0.5 * (pairs == 0).mean())

    assert abs(METRICS["auc"](hit.astype(np.int64), answered(score)) - share) < 1e-12
    assert abs(area(score, hit).value - share) < 1e-12


@given(cases, st.lists(st.integers(0, 3), min_size=60, max_size=60))
def test_a_weight_is_a_number_of_copies(rows: list[tuple[float, bool]], copies: list[int]) -> None:
    score, hit = arrays(rows)
    weight = np.array(copies[: len(rows)])
    many = np.repeat(np.arange(len(rows)), weight)
    if len(many) == 0:
        return
    label = hit.astype(np.int64)

    for name in ("accuracy", "balanced_accuracy", "auc", "average_precision", "log_loss", "brier"):
        weighted = METRICS[name](label, answered(score), weight=weight.astype(np.float64))
        copied = METRICS[name](label[many], answered(score[many]))
        np.testing.assert_allclose(weighted, copied, atol=1e-12, err_msg=name)


@given(cases)
def test_the_order_of_rows_changes_no_metric(rows: list[tuple[float, bool]]) -> None:
    score, hit = arrays(rows)
    order = np.random.default_rng(len(rows)).permutation(len(rows))
    label = hit.astype(np.int64)

    for name in ("f1", "auc", "average_precision", "log_loss"):
        assert abs(METRICS[name](label, answered(score)) - METRICS[name](label[order], answered(score[order]))) < 1e-12, name


@settings(deadline=None, max_examples=50)
@given(cases, st.integers(0, 5), st.integers(0, 5))
def test_no_other_threshold_is_cheaper(rows: list[tuple[float, bool]], false_positive: int, false_negative: int) -> None:
    score, hit = arrays(rows)

    found = choose_threshold(hit, score, float(false_positive), float(false_negative))

    def cost(threshold: float) -> float:
        flagged = score >= threshold
        return float((false_positive * (flagged & ~hit) + false_negative * (~flagged & hit)).mean())

    assert abs(cost(found.threshold) - found.cost) < 1e-9
    assert found.cost <= min(cost(t) for t in np.linspace(0, 1.025, 42)) + 1e-9
    assert 0 <= found.low <= found.high <= 1.0000001


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80), st.floats(0, 0.5))
def test_no_more_normal_rows_are_flagged_than_allowed(values: list[float], fraction: float) -> None:
    normal = np.array(values)

    assert (normal >= anomaly_threshold(normal, fraction)).sum() <= fraction * len(normal) + 1e-6


@given(cases)
def test_isotonic_calibration_keeps_order_and_the_mean(rows: list[tuple[float, bool]]) -> None:
    score, hit = arrays(rows)
    shares = answered(score).probabilities
    assert shares is not None

    mended = calibrate(fit_calibrator("isotonic", hit.astype(np.int64), shares), shares)[:, 1]

    assert (np.diff(mended[np.argsort(score, kind="stable")]) >= -1e-12).all()
    assert abs(mended.mean() - hit.mean()) < 1e-9


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_only_raises_p_values_and_keeps_their_order(p_values: list[float]) -> None:
    adjusted = np.array(holm(p_values))

    assert (adjusted >= np.array(p_values) - 1e-15).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(p_values, kind="stable")]) >= 0).all()


@given(st.lists(st.tuples(*[st.sampled_from([0.0, -0.0, 1.0, 2.0, float("nan")])] * 3), min_size=1, max_size=40))
def test_rows_have_one_number_exactly_when_they_are_equal(rows: list[tuple[float, float, float]]) -> None:
    x = np.array(rows, np.float32)
    keys = [tuple("nan" if value != value else value + 0.0 for value in row) for row in rows]

    hashes = row_hashes(x)

    assert len(set(hashes.tolist())) == len(set(keys))
