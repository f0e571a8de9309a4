"""The converter's reader of calibrator.json says what the trainer's says."""

from typing import Any

import numpy as np
import pytest

from converter.calibrators import Curves, Odds, Powers, calibrate, parse_calibrator
from edgefleet.errors import ArtifactError
from trainer.calibration import calibrate as trainers
from trainer.calibration import fit_calibrator


def shares(classes: int, n: int = 2000) -> Any:
    rng = np.random.default_rng(classes)
    probabilities = rng.dirichlet(np.ones(classes), n)
    probabilities[:3] = np.eye(classes)[[0, 1, 0]]
    label = np.array([rng.choice(classes, p=row**0.5 / (row**0.5).sum()) for row in probabilities])
    return label, probabilities


@pytest.mark.parametrize(("kind", "classes"), [("sigmoid", 2), ("sigmoid", 4), ("isotonic", 2), ("isotonic", 4)])
def test_a_fitted_calibrator_is_read_as_the_trainer_reads_it(kind: Any, classes: int) -> None:
    label, probabilities = shares(classes)
    document = fit_calibrator(kind, label, probabilities)

    assert np.abs(calibrate(document, probabilities) - trainers(document, probabilities)).max() < 1e-12


def test_rows_of_which_every_curve_says_nothing_keep_their_probabilities() -> None:
    late = {"x": [0.8, 0.9], "y": [0.0, 1.0]}
    probabilities = np.array([[0.3, 0.3, 0.4], [0.85, 0.1, 0.05]])

    found = calibrate({"kind": "isotonic", "curves": [late, late, late]}, probabilities)

    assert found.round(12).tolist() == [[0.3, 0.3, 0.4], [1.0, 0.0, 0.0]]


def test_flat_pieces_of_a_curve_cost_nothing() -> None:
    curve = {"x": [0.0, 0.1, 0.2, 0.3], "y": [0.5, 0.5, 0.6, 0.6]}

    parsed = parse_calibrator({"kind": "isotonic", "curves": [curve]}, 2)

    assert isinstance(parsed, Curves)
    assert parsed.curves[0].low.tolist() == [0.1]


def test_kinds_are_told_apart() -> None:
    assert parse_calibrator({"kind": "sigmoid", "slope": 2, "intercept": 0.5}, 2) == Odds(2.0, 0.5)
    assert parse_calibrator({"kind": "temperature", "slope": 0.5}, 3) == Powers(0.5)


@pytest.mark.parametrize(
    ("document", "classes"),
    [
        ({}, 2),
        ({"kind": "wizardry"}, 2),
        ({"kind": "sigmoid", "slope": 1.0, "intercept": 0.0}, 3),
        ({"kind": "sigmoid", "slope": float("nan"), "intercept": 0.0}, 2),
        ({"kind": "sigmoid", "slope": "1", "intercept": 0.0}, 2),
        ({"kind": "temperature"}, 3),
        ({"kind": "isotonic", "curves": [{"x": [0.0], "y": [0.5]}]}, 3),
        ({"kind": "isotonic", "curves": [{"x": [0.5, 0.1], "y": [0.0, 1.0]}]}, 2),
        ({"kind": "isotonic", "curves": [{"x": [0.0, 1.0], "y": [0.0]}]}, 2),
        ({"kind": "isotonic", "curves": 7}, 2),
    ],
)
def test_a_damaged_calibrator_or_one_for_other_classes_is_refused(document: dict[str, Any], classes: int) -> None:
    with pytest.raises(ArtifactError, match=r"calibrator\.json"):
        parse_calibrator(document, classes)
