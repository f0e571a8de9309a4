"""G6: the probabilities mean what they say."""

from edgefleet.intervals import Z_TWO_SIDED
from trainer.answers import Answers
from trainer.calibration import calibration
from trainer.criteria import Criteria
from trainer.dataset import DataSet
from trainer.gates.verdicts import Gate, GateVerdict
from trainer.intervals import few_groups, few_rows
from trainer.metrics import not_finite


def judge_calibration(project: Criteria, rows: DataSet, answers: Answers) -> Gate:
    """G6: |Spiegelhalter's z| at most 1.96. The expected calibration error is told, never judged: it fails calibrated models.

    Few rows or groups make z small whatever the model, so they do not pass.
    """
    n = len(rows)
    if answers.probabilities is None:
        return Gate(gate="G6", verdict="skipped", n=n, sentence="There are no probabilities to calibrate.")
    if not_finite(answers):
        return Gate(gate="G6", verdict="inconclusive", n=n, sentence="Some answers are not finite numbers: see G4.")
    found = calibration(rows.label, answers, rows.group)
    z, limit = found["z"], Z_TWO_SIDED
    if z is None:
        return Gate(gate="G6", verdict="inconclusive", n=n, limit=limit, sentence="Every probability is even: nothing to test.")
    refit = "" if found["slope"] is None else f" slope {found['slope']:.2f}, intercept {found['intercept']:+.2f} of the logit refit,"
    sentence = f"Spiegelhalter's z is {z:+.2f} on {n} rows (at most {limit:.2f} either way),{refit} expected calibration error"
    sentence += f" {found['ece']:.3f}."
    if project.gates.calibration == "report":
        return Gate(gate="G6", verdict="skipped", value=z, limit=limit, n=n, sentence=f"Only reported (gates.calibration): {sentence}")
    verdict: GateVerdict = "pass" if abs(z) <= limit else "fail"
    if reason := few_rows(n) or few_groups(rows.group):
        verdict, sentence = "inconclusive", f"{sentence} Not judged: {reason}."
    return Gate(gate="G6", verdict=verdict, value=z, limit=limit, n=n, sentence=sentence)
