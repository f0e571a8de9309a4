"""The trainer's gates G1 to G10: verdict pass, fail, inconclusive or skipped, each with value, limit, n, bounds and one sentence.

G1 schema, G2 quality (`data.py`), G3 leakage (`leakage.py`), G4 minimum and G7 champion (`metric.py`), G5 slices and G10 fairness
(`slices.py`), G6 calibration, G8 robustness. G9, the device's budgets, is the converter's. Too few rows never pass a gate.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.answers import Answers
from trainer.criteria import Criteria
from trainer.dataset import DataSet
from trainer.gates.calibration import judge_calibration
from trainer.gates.data import judge_quality, judge_schema
from trainer.gates.leakage import judge_leakage
from trainer.gates.metric import judge_champion, judge_goal
from trainer.gates.robustness import judge_robustness
from trainer.gates.slices import judge_fairness, judge_slices
from trainer.gates.verdicts import KNOWN_GATES, Gate, GateVerdict, check_overrides, overrule
from trainer.robustness import measure_robustness

__all__ = [
    "KNOWN_GATES",
    "Criteria",
    "Gate",
    "GateVerdict",
    "check_overrides",
    "judge_candidate",
    "judge_rows",
    "overrule",
]


def judge_rows(project: Criteria, rows: DataSet) -> list[Gate]:
    """G1 to G3, which no candidate can change.

    Args:
        project: Limits and inputs.
        rows: All rows.
    """
    return [judge_schema(rows), judge_quality(project, rows), judge_leakage(project, rows)]


def judge_candidate(
    project: Criteria,
    rows: DataSet,
    answers: Answers,
    predict: Callable[[NDArray[np.float32]], Answers],
    champion: Answers | None,
    robustness: Sequence[dict[str, Any]] | None = None,
) -> list[Gate]:
    """G4 to G10 of one candidate.

    Args:
        project: Goal, limits and inputs.
        rows: Validation rows.
        answers: The candidate's to them.
        predict: Raw rows to answers, for the disturbed ones of G8.
        champion: The champion's answers to the same rows, or None.
        robustness: Of `measure_robustness`, where the caller has measured it already.
    """
    measured = measure_robustness(project, rows, answers, predict) if robustness is None else robustness
    return [
        judge_goal(project, rows, answers),
        judge_slices(project, rows, answers),
        judge_calibration(project, rows, answers),
        judge_champion(project, rows, answers, champion),
        judge_robustness(project, measured, len(rows)),
        Gate(gate="G9", verdict="skipped", n=len(rows), sentence="There is no variant yet: the converter judges budgets."),
        judge_fairness(project, rows, answers),
    ]
