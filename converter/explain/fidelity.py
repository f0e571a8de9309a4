"""Do the contributions add up to the margin, measured with the device's own explainer on the variant that will run there?"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from device_agent.scorer import Scorer


def additivity_gap(scorer: "Scorer", rows: Sequence[NDArray[np.float32]]) -> float:
    """Largest |margin - base - sum of contributions| relative to max(1, |margin|) over some rows.

    Args:
        scorer: The variant, opened by the device's scorer.
        rows: A few rows; a sampled explanation evaluates the model some hundred times for each.
    """
    worst = 0.0
    for row in rows:
        score = scorer.score(row, explain=True)
        if score.explanation is None:
            return float("inf")
        worst = max(worst, abs(score.explanation.gap) / max(1.0, abs(score.margin)))
    return worst
