import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from edgefleet.errors import ArtifactError, InputError, VerdictError
from trainer.answers import Answers
from trainer.calibration import calibrate, calibration, fit_calibrator, log_odds, logit_refit, spiegelhalter_z
from trainer.metrics import METRICS


def binary(rng: np.random.Generator, n: int, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from true probabilities, shown with log-odds `temperature` times too large."""
    odds = rng.normal(0, 1.5, n)
    label = (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    shown = np.clip(1 / (1 + np.exp(-temperature * odds)), 1e-6, 1 - 1e-6)
    return label, np.stack([1 - shown, shown], axis=1)


def many(rng: np.random.Generator, n: int, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    shares = rng.dirichlet(np.ones(4), n)
    label = (shares.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    shown = shares**sharpness
    return label, shown / shown.sum(axis=1, keepdims=True)


def test_spiegelhalters_z_alarms_falsely_in_five_per_cent() -> None:
    # 2,000 sets know the share to half a point; the research's table has 4.9 %.
    rng = np.random.default_rng(0)

    alarms = np.mean([abs(spiegelhalter_z(*binary(rng, 500)) or 0) > 1.96 for _ in range(2000)])

    assert 0.04 <= alarms <= 0.06


@pytest.mark.parametrize(("n", "temperature", "share"), [(500, 1.25, 0.67), (2000, 1.25, 0.998), (500, 1.5, 0.99)])
def test_spiegelhalters_z_finds_overconfidence_as_often_as_the_table_says(n: int, temperature: float, share: float) -> None:
    rng = np.random.default_rng(1)

    found = np.mean([abs(spiegelhalter_z(*binary(rng, n, temperature)) or 0) > 1.96 for _ in range(500)])

    assert found == pytest.approx(share, abs=0.05)  # 500 sets: two standard errors are .042


def test_the_test_of_many_classes_alarms_falsely_in_five_per_cent() -> None:
    rng = np.random.default_rng(2)

    alarms = np.mean([abs(spiegelhalter_z(*many(rng, 400)) or 0) > 1.96 for _ in range(2000)])

    assert 0.04 <= alarms <= 0.06


def test_the_test_of_two_classes_is_spiegelhalters_formula() -> None:
    label, shares = binary(np.random.default_rng(3), 200)
    p, y = shares[:, 1], label

    z = ((y - p) * (1 - 2 * p)).sum() / np.sqrt(((1 - 2 * p) ** 2 * p * (1 - p)).sum())

    assert spiegelhalter_z(label, shares) == pytest.approx(z, rel=1e-12)


def test_alike_rows_of_a_group_do_not_alarm() -> None:
    rng = np.random.default_rng(4)

    def alarm(grouped: bool) -> bool:
        label, shares = binary(rng, 100)
        groups = np.repeat(np.arange(100), 10)
        z = spiegelhalter_z(np.repeat(label, 10), np.repeat(shares, 10, axis=0), groups if grouped else None)
        return abs(z or 0) > 1.96

    assert np.mean([alarm(grouped=True) for _ in range(300)]) < 0.1
    assert np.mean([alarm(grouped=False) for _ in range(300)]) > 0.4


def test_a_coin_that_knows_nothing_cannot_be_tested() -> None:
    assert spiegelhalter_z(np.array([0, 1] * 20), np.full((40, 2), 0.5)) is None


def test_certain_and_wrong_is_a_loud_alarm() -> None:
    label = np.array([0] * 49 + [1])

    z = spiegelhalter_z(label, np.eye(2)[np.zeros(50, int)])

    assert z is not None
    assert z > 10


def test_the_refit_is_logistic_regression() -> None:
    label, shares = binary(np.random.default_rng(5), 600, 1.4)
    oracle = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(log_odds(shares[:, 1])[:, None], label)

    found = logit_refit(label == 1, shares[:, 1])

    assert found == pytest.approx((oracle.coef_[0, 0], oracle.intercept_[0]), abs=1e-5)  # lbfgs stops earlier than Newton


def test_separated_classes_have_no_refit() -> None:
    assert logit_refit(np.array([False, False, True, True]), np.array([0.1, 0.2, 0.8, 0.9])) is None


def test_one_probability_has_no_refit() -> None:
    assert logit_refit(np.array([False, True]), np.array([0.3, 0.3])) is None


def test_the_bins_hold_every_row_once() -> None:
    label, shares = binary(np.random.default_rng(6), 1000)

    found = calibration(label, Answers(probabilities=shares))

    assert sum(one["n"] for one in found["bins"]) == 1000
    assert all(one["low"] <= one["confidence"] <= one["high"] for one in found["bins"])
    assert all(one["share_low"] <= one["share"] <= one["share_high"] for one in found["bins"])
    assert found["slope"] == pytest.approx(1.0, abs=0.2)
    assert 0 < found["ece"] < 0.1


def test_probability_one_falls_into_the_last_bin() -> None:
    found = calibration(np.array([1, 1, 0]), Answers(probabilities=np.array([[0.0, 1.0], [0.0, 1.0], [0.9, 0.1]])))

    assert [one["low"] for one in found["bins"]] == [0.1, 0.9]


@pytest.mark.parametrize("kind", ["sigmoid", "isotonic"])
@pytest.mark.parametrize("rows", [binary, many])
def test_calibration_lowers_the_log_loss_of_a_model_that_is_too_sure(kind: str, rows: object) -> None:
    label, shares = rows(np.random.default_rng(7), 3000, 2.0)  # type: ignore[operator]  # one of the two functions above
    other_label, other = rows(np.random.default_rng(8), 3000, 2.0)  # type: ignore[operator]  # the same

    mended = calibrate(fit_calibrator(kind, label, shares), other)  # type: ignore[arg-type]  # a parameter is plain text

    assert mended.sum(axis=1) == pytest.approx(np.ones(3000), abs=1e-12)
    assert (
        METRICS["brier"](other_label, Answers(probabilities=mended)) < METRICS["brier"](other_label, Answers(probabilities=other)) - 0.003
    )


@pytest.mark.parametrize("kind", ["sigmoid", "isotonic"])
def test_calibration_never_turns_two_rows_round(kind: str) -> None:
    label, shares = binary(np.random.default_rng(9), 300, 2.0)
    rising = np.linspace(0, 1, 1001)

    mended = calibrate(fit_calibrator(kind, label, shares), np.stack([1 - rising, rising], axis=1))  # type: ignore[arg-type]

    assert (np.diff(mended[:, 1]) >= 0).all()


def test_temperature_changes_no_answered_class() -> None:
    label, shares = many(np.random.default_rng(10), 500, 2.0)

    found = fit_calibrator("sigmoid", label, shares)

    assert found["kind"] == "temperature"
    assert found["slope"] == pytest.approx(0.5, abs=0.1)
    assert (calibrate(found, shares).argmax(axis=1) == shares.argmax(axis=1)).all()


def test_isotonic_is_scikit_learns() -> None:
    label, shares = binary(np.random.default_rng(11), 400)
    oracle = IsotonicRegression(out_of_bounds="clip").fit(shares[:, 1], label)
    asked = np.random.default_rng(12).random(200)

    mended = calibrate(fit_calibrator("isotonic", label, shares), np.stack([1 - asked, asked], axis=1))

    assert mended[:, 1] == pytest.approx(oracle.predict(asked), abs=1e-12)


def test_probabilities_that_rank_backwards_are_refused() -> None:
    label, shares = binary(np.random.default_rng(13), 300)

    with pytest.raises(VerdictError, match="rarer class"):
        fit_calibrator("sigmoid", label, shares[:, ::-1])


def test_one_class_cannot_calibrate() -> None:
    with pytest.raises(InputError, match="one class only"):
        fit_calibrator("sigmoid", np.ones(40, np.int64), np.full((40, 2), 0.5))


@pytest.mark.parametrize("calibrator", [{}, {"kind": "spline"}, {"kind": "isotonic", "curves": [{}]}, {"kind": "sigmoid"}])
def test_a_damaged_calibrator_is_refused(calibrator: dict[str, object]) -> None:
    with pytest.raises(ArtifactError, match="calibrator"):
        calibrate(calibrator, np.full((2, 2), 0.5))


def test_a_row_that_every_curve_rules_out_keeps_its_probabilities() -> None:
    curve = {"x": [0.0, 1.0], "y": [0.0, 0.0]}

    mended = calibrate({"kind": "isotonic", "curves": [curve, curve, curve]}, np.array([[0.2, 0.3, 0.5]]))

    assert mended.tolist() == [[0.2, 0.3, 0.5]]


def test_one_probability_for_every_row_becomes_the_share_of_the_class() -> None:
    label = np.array([0] * 30 + [1] * 10)

    mended = calibrate(fit_calibrator("sigmoid", label, np.full((40, 2), 0.5)), np.full((2, 2), 0.5))

    # Platt's targets: 10 rows of 11 / 12 and 30 of 1 / 32.
    assert mended[:, 1] == pytest.approx((10 * 11 / 12 + 30 / 32) / 40, abs=1e-12)
