"""Self-test and trial of every kind of model: thresholds, values, detectors, windows, variants that take no missing value."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device_agent import Scorer
from device_agent.doors.answering import Answering
from device_agent.update.selftest import check_golden
from device_agent.update.trial import VALUE_TOLERANCE_SPREADS, Trial, TrialVerdict, likeness
from edgefleet.bundle import Bundle
from edgefleet.desired import TrialPolicy
from edgefleet.errors import ArtifactError
from edgefleet.manifest import Input, Manifest
from edgefleet.package import npz_bytes
from edgefleet.reference import build_reference
from tests.unit.device_agent.bundles import (
    FEATURES,
    logistic_bundle,
    logistic_graph,
    numbers,
    regression_graph,
    training_rows,
    write_bundle,
)
from tests.unit.device_agent.test_scorer_decisions import outlier_bundle, table_graph
from tests.unit.device_agent.test_scorer_windows import margins, window_bundle, windows

SLOPES = np.array([2.0, -1.0, 0.5, 0.0, 1.0], np.float32)
POLICY = TrialPolicy(soak_s=0.0, soak_rows=10, timeout_s=60.0, agreement_rows=20, min_agreement=0.9)


def golden(x: NDArray[np.float32], **answers: NDArray[Any]) -> dict[str, bytes]:
    empty = np.zeros((len(x), 0))
    arrays: dict[str, NDArray[Any]] = {"x": x, "label": np.zeros(len(x)), "probabilities": empty, "margin": empty, **answers}
    return {"golden.npz": npz_bytes(arrays)}


def value_bundle(folder: Path, slopes: NDArray[np.float32] = SLOPES, shift: float = 0.0, **changes: Any) -> Bundle:
    """A linear regression (or detector) with golden rows that are wrong by `shift`, and the deciles of its values."""
    x, _ = training_rows()
    values = x.astype(np.float64) @ slopes.astype(np.float64)
    reference = build_reference(x, numbers(), block_rows=50, scores=values)
    extra = golden(x[:16], margin=values[:16, None] + shift)
    made = write_bundle(folder, regression_graph(slopes), x, numbers(), [], reference=reference, extra=extra, changes=changes)
    return Bundle.open(made.folder)


def check(bundle: Bundle) -> tuple[bool, str]:
    result = check_golden(bundle, bundle.manifest.variants[0])
    return result.ok, result.reason


def trial_of(running: Bundle, candidate: Bundle, x: NDArray[np.float32]) -> Trial:
    """What a trial counted after some rows, begun as the updater begins it."""
    with Scorer.open(running) as ours, Scorer.open(candidate) as theirs:
        models = Answering()
        models.install(ours)
        like = likeness(running.manifest, candidate.manifest, ours.score_spread)
        trial = Trial(POLICY, 0.0, like.compared, tolerance=like.tolerance, skipped=like.skipped)
        models.begin_trial(theirs, trial)
        for row in x:
            models.score(row)
        assert models.settle(30.0)
        models.end_trial()
    return trial


def test_values_within_the_tolerance_pass_and_others_fail_with_the_numbers(tmp_path: Path) -> None:
    ok, reason = check(value_bundle(tmp_path / "a"))
    assert ok
    assert reason.startswith("16 golden rows agree")
    ok, reason = check(value_bundle(tmp_path / "b", shift=0.25))
    assert not ok
    assert "largest error 0.25 on 16 golden rows, allowed is 1e-05" in reason


def test_a_detector_passes_by_its_scores(tmp_path: Path) -> None:
    assert check(value_bundle(tmp_path / "a", task="anomaly", threshold=1.0))[0]
    assert not check(value_bundle(tmp_path / "b", shift=0.1, task="anomaly", threshold=1.0))[0]


def threshold_bundle(folder: Path, threshold: float, shift: float) -> Bundle:
    """Two classes; the golden rows' probabilities of `yes` are `shift` below the model's, which the tolerance allows."""
    rng = np.random.default_rng(1)
    weights, bias = rng.normal(size=(FEATURES, 1)).astype(np.float32), rng.normal(size=1).astype(np.float32)
    x = training_rows()[0][:64]
    yes = 1 / (1 + np.exp(-(x.astype(np.float64) @ weights + bias)[:, 0])) - shift
    changes: dict[str, Any] = {"threshold": threshold, "positive": "yes"}
    extra = golden(x, probabilities=np.column_stack([1 - yes, yes]))
    made = write_bundle(folder, logistic_graph(weights, bias), training_rows()[0], numbers(), ["no", "yes"], changes=changes, extra=extra)
    manifest = json.loads((made.folder / "manifest.json").read_text())
    manifest["variants"][0]["tolerance"]["max_error"] = 0.15
    (made.folder / "manifest.json").write_text(json.dumps(manifest))
    return Bundle.open(made.folder)


def test_labels_are_those_of_the_threshold_outside_ties(tmp_path: Path) -> None:
    assert check(threshold_bundle(tmp_path / "a", 0.3, 0.0))[0]
    ok, reason = check(threshold_bundle(tmp_path / "b", 0.3, 0.1))
    assert not ok
    assert "are another class, outside ties" in reason
    # Nothing lies near this threshold, although rows lie near a half.
    assert check(threshold_bundle(tmp_path / "c", 1.5, 0.1))[0]


def test_windows_pass_their_golden_windows(tmp_path: Path) -> None:
    x = windows(12)
    yes = 1 / (1 + np.exp(-margins(x)))
    good = window_bundle(tmp_path / "a", extra=golden(x, probabilities=np.column_stack([1 - yes, yes])))
    swapped = window_bundle(tmp_path / "b", extra=golden(x, probabilities=np.column_stack([yes, 1 - yes])))
    assert check(Bundle.open(good.folder))[0]
    assert not check(Bundle.open(swapped.folder))[0]


def test_rows_with_a_missing_value_are_left_out_only_of_a_variant_that_takes_none(tmp_path: Path) -> None:
    inputs = [Input(name=f"f{i}", missing=True) for i in range(FEATURES)]
    made = logistic_bundle(tmp_path / "a", inputs)
    with Scorer.open(made.folder) as scorer:
        shares = scorer.score_batch(made.x[:8]).probabilities
    rows = made.x[:8].copy()
    rows[2, 1] = np.nan
    extra = golden(rows, probabilities=shares)
    refuses = logistic_bundle(tmp_path / "b", inputs, variant="onnx-int8", takes_missing=False, extra=extra)
    takes = logistic_bundle(tmp_path / "c", inputs, extra=extra)  # answers NaN there, and the golden rows do not
    none = logistic_bundle(tmp_path / "d", inputs, takes_missing=False, extra=golden(rows[2:3], probabilities=shares[2:3]))
    ok, reason = check(Bundle.open(refuses.folder))
    assert ok
    assert reason.startswith("7 golden rows agree")
    assert not check(Bundle.open(takes.folder))[0]
    with pytest.raises(ArtifactError, match="no golden rows that variant onnx-fp32 takes"):
        check(Bundle.open(none.folder))


def test_a_detector_that_fails_on_a_golden_row_fails_the_self_test(tmp_path: Path) -> None:
    made = logistic_bundle(tmp_path / "a")
    with Scorer.open(made.folder) as scorer:
        shares = scorer.score_batch(made.x[:8]).probabilities
    good = outlier_bundle(tmp_path / "b", extra=golden(made.x[:8], probabilities=shares))
    # Gathers from two entries by values that go beyond them.
    bad = outlier_bundle(tmp_path / "c", table_graph(), extra=golden(made.x[:8] + 5, probabilities=shares))
    assert check(Bundle.open(good.folder))[0]
    with pytest.raises(ArtifactError, match="the outlier detector failed"):
        check(Bundle.open(bad.folder))


def test_values_agree_within_half_a_spread_of_the_running_models_values(tmp_path: Path) -> None:
    x, _ = training_rows()
    running = value_bundle(tmp_path / "a")
    near, far = SLOPES.copy(), SLOPES.copy()
    near[0] += 0.3
    far[0] = 0.0  # lost its strongest input
    spread = float((x @ SLOPES).std())

    same = trial_of(running, value_bundle(tmp_path / "b", near), x[:100])
    other = trial_of(running, value_bundle(tmp_path / "c", far), x[:100])

    # The spread is told by deciles, which 400 rows know to about a tenth.
    assert same.tolerance == pytest.approx(VALUE_TOLERANCE_SPREADS * spread, rel=0.15)
    assert same.verdict(1.0)[0] is TrialVerdict.OK
    assert same.agreed == int((np.abs(x[:100, 0] * 0.3) <= same.tolerance).sum())
    verdict, reason = other.verdict(1.0)
    assert verdict is TrialVerdict.REJECTED
    assert f"of 100 rows within {other.tolerance:.3g}" in reason


def test_detectors_agree_by_label_whatever_the_unit_of_their_scores(tmp_path: Path) -> None:
    x, _ = training_rows()
    running = value_bundle(tmp_path / "a", task="anomaly", threshold=2.0)
    scaled = value_bundle(tmp_path / "b", SLOPES * 10, task="anomaly", threshold=20.0)
    eager = value_bundle(tmp_path / "c", task="anomaly", threshold=0.0)
    strange = int((x[:100] @ SLOPES >= 2.0).sum())

    assert trial_of(running, scaled, x[:100]).agreed == 100
    trial = trial_of(running, eager, x[:100])
    assert trial.agreed == 100 - int((x[:100] @ SLOPES >= 0.0).sum()) + strange
    assert trial.verdict(1.0)[0] is TrialVerdict.REJECTED


def test_models_that_cannot_be_compared_say_why_and_are_not_rejected(tmp_path: Path) -> None:
    values = value_bundle(tmp_path / "a").manifest
    undecided = value_bundle(tmp_path / "b", task="anomaly").manifest
    decided = value_bundle(tmp_path / "c", task="anomaly", threshold=1.0).manifest
    classes = Bundle.open(logistic_bundle(tmp_path / "d").folder).manifest
    cases: list[tuple[Manifest | None, Manifest, float | None, str]] = [
        (None, values, None, "first model on this device"),
        (values, values, None, "does not say how far its values spread"),
        (values, values, 0.0, "does not say how far its values spread"),
        (classes, values, 1.0, "a regression model follows a classification model"),
        (undecided, decided, 1.0, "a detector without a threshold decides nothing"),
    ]
    for running, candidate, spread, why in cases:
        like = likeness(running, candidate, spread)
        assert (like.compared, why in like.skipped) == (False, True)
        trial = Trial(POLICY, 0.0, like.compared, rows=20, skipped=like.skipped)
        verdict, reason = trial.verdict(1.0)
        assert verdict is TrialVerdict.OK
        assert why in reason
    assert likeness(classes, classes, None).compared
