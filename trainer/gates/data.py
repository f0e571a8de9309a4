"""What the rows themselves must bear, whatever the candidate. G1: they obey the schema. G2: they are good enough to learn from."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.intervals import Z_ONE_SIDED, wilson
from edgefleet.manifest import Input
from trainer.criteria import MIN_ROWS, Criteria
from trainer.dataset import DataSet
from trainer.gates.leakage import row_hashes
from trainer.gates.verdicts import Gate, GateVerdict, exact

FEW_OF_A_CLASS: Final = 10  # training rows of a class below which nobody can say what was learnt of it


def judge_schema(rows: DataSet) -> Gate:
    """G1: every row obeys the schema. Exact."""
    n = len(rows)
    sentence = f"All {n} rows obey the schema."
    if rows.breaches:
        sentence = f"{rows.breaches} of {n + rows.breaches} rows break the schema: {'; '.join(rows.named_breaches)}."
    return Gate(gate="G1", verdict=exact(rows.breaches), value=rows.breaches, limit=0, n=n + rows.breaches, sentence=sentence)


def judge_quality(project: Criteria, rows: DataSet) -> Gate:
    """G2, on training rows: the share of missing values of the worst column is within its limit (Wilson bounds).

    A label that never changes, or a class that is only met after training, fails. Columns that never change and classes of fewer than ten
    rows are inconclusive. Shares of repeated rows and of values out of range are told.
    """
    training = rows.of("train")
    n, limit = len(training), project.gates.max_missing_fraction
    if n < MIN_ROWS:
        return Gate(gate="G2", verdict="skipped", n=n, sentence=f"{n} training rows are fewer than {MIN_ROWS}.")
    x = training.x if training.x.ndim == 2 else training.x[:, -1]
    missing = np.isnan(x).sum(axis=0)
    worst = int(missing.argmax())
    low, high = wilson(float(missing[worst]), n, Z_ONE_SIDED)
    value = float(missing[worst] / n)
    verdict: GateVerdict = "pass" if missing[worst] == 0 or high <= limit else "fail" if low > limit else "inconclusive"
    sentence = f"At most {value:.1%} of a column is missing ({project.inputs[worst].name}), limit {limit:.1%}."
    for found, words in (_label_words(rows, training, project.goal.task), _constant_words(x, project.inputs)):
        sentence += words
        verdict = "fail" if "fail" in (found, verdict) else "inconclusive" if "inconclusive" in (found, verdict) else verdict
    sentence += _told(training, x, project.inputs)
    return Gate(gate="G2", verdict=verdict, value=value, limit=limit, n=n, low=low, high=high, sentence=sentence)


def _constant_words(x: NDArray[np.float32], inputs: list[Input]) -> tuple[GateVerdict, str]:
    with np.errstate(invalid="ignore"):
        varies = np.fmax.reduce(x, axis=0) > np.fmin.reduce(x, axis=0)
    # A column that is there or missing says something too.
    varies |= np.isnan(x).any(axis=0) & ~np.isnan(x).all(axis=0)
    constant = [column.name for column, moves in zip(inputs, varies, strict=True) if not moves]
    if not constant:
        return "pass", ""
    more = ", ..." if len(constant) > 5 else ""
    return "inconclusive", f" {len(constant)} columns never change: {', '.join(constant[:5])}{more}; remove them or say why they stay."


def _label_words(rows: DataSet, training: DataSet, task: str) -> tuple[GateVerdict, str]:
    if task in ("regression", "rul"):
        constant = float(np.ptp(training.label)) == 0
        return ("fail", f" The target is always {training.label[0]:.4g}: there is nothing to learn.") if constant else ("pass", "")
    counts = np.bincount(training.label, minlength=len(rows.classes))
    everywhere = np.bincount(rows.label, minlength=len(rows.classes))
    names = np.array(rows.classes)
    if task == "anomaly":
        return ("pass", "") if counts[0] else ("fail", " No training row is normal: there is nothing to learn.")
    if (counts > 0).sum() < 2:
        return "fail", f" All training rows are of class {rows.classes[int(counts.argmax())]!r}: there is nothing to learn."
    if (absent := names[(counts == 0) & (everywhere > 0)].tolist()) != []:
        return "fail", f" Without a training row: {', '.join(absent[:5])}."
    if (few := names[counts < FEW_OF_A_CLASS].tolist()) != []:
        return "inconclusive", f" Under {FEW_OF_A_CLASS} training rows: {', '.join(few[:5])}."
    return "pass", f" Classes hold {int(counts.min())} to {int(counts.max())} training rows."


def _told(training: DataSet, x: NDArray[np.float32], inputs: list[Input]) -> str:
    """Shares that are worth knowing and no verdict."""
    words = ""
    if repeated := len(training) - len(np.unique(row_hashes(training.x))):
        words += f" {repeated / len(training):.1%} of the rows repeat another."
    low = np.array([-np.inf if column.low is None else column.low for column in inputs])
    high = np.array([np.inf if column.high is None else column.high for column in inputs])
    outside = ((x < low) | (x > high)).sum(axis=0)
    if outside.any():
        worst = int(outside.argmax())
        words += f" Up to {outside[worst] / len(training):.1%} of a column is out of its range ({inputs[worst].name})."
    return words
