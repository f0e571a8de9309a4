"""Boosted trees from package to bundle: log-odds as margin."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from converter import convert
from device_agent.scorer import Scorer
from tests.unit.converter.converter_packages import PARITY, digits, fitted, tree_package


@pytest.mark.conversions
def test_histogram_boosting_answers_log_odds_and_is_explained_exactly(tmp_path: Path) -> None:
    model = fitted(HistGradientBoostingClassifier(max_iter=5, random_state=0))
    package = tree_package(tmp_path / "package", model, "boosting")
    x, _ = digits()

    bundle = convert(package, output=tmp_path / "bundle")

    with Scorer.open(bundle) as scorer:
        answers = scorer.score_batch(x[PARITY])
        explanation = scorer.score(x[1000], explain=True).explanation
    assert np.abs(answers.margins - model.decision_function(x[PARITY].astype(np.float64))).max() < 1e-5
    assert bundle.manifest.margin_kind == "log-odds"
    assert explanation is not None
    assert explanation.method == "treeshap"
    assert abs(explanation.gap) < 1e-5
