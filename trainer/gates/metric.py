"""G4: the goal's metric reaches its limit. G7: the model is not worse than the champion by the margin or more, on the same rows."""

from trainer.answers import Answers
from trainer.bootstrap import Interval, metric_interval, paired_interval
from trainer.criteria import Criteria, Verdict, at_least, at_most, finite
from trainer.dataset import DataSet
from trainer.gates.verdicts import Gate, judged
from trainer.metrics import METRICS, not_finite


def judge_goal(project: Criteria, rows: DataSet, answers: Answers) -> Gate:
    """G4: the one-sided 95 % bound of the metric reaches the goal's limit; without a limit nothing is blessed."""
    goal, metric = project.goal, METRICS[project.goal.metric]
    if broken := not_finite(answers):
        sentence = f"{broken} of {len(rows)} answers are not finite numbers: the model is broken on these rows."
        return Gate(gate="G4", verdict="fail", value=broken, limit=0, n=len(rows), sentence=sentence)
    interval = metric_interval(goal.metric, rows.label, answers, rows.group, goal, project.search.seed, rows.classes)
    shown = f"{_name(goal.metric)} {_bounded(interval)} on {interval.n} rows"
    limit = goal.minimum if metric.greater_is_better else goal.maximum
    if limit is None:
        key = "minimum" if metric.greater_is_better else "maximum"
        sentence = f"{shown}, but goal.{key} is not set: no criterion, no blessing."
        return Gate(gate="G4", verdict="inconclusive", sentence=sentence, value=finite(interval.value), n=interval.n,
                    low=finite(interval.lower), high=finite(interval.upper))  # fmt: skip
    judge, side = (at_least, "minimum") if metric.greater_is_better else (at_most, "maximum")
    verdict = judge(interval.lower, interval.upper, limit)
    words = {"pass": "keeps", "fail": "misses"}.get(verdict, "may or may not keep") if side == "maximum" else (
        {"pass": "reaches", "fail": "is below"}.get(verdict, "may or may not reach")
    )  # fmt: skip
    return judged("G4", verdict, interval, limit, f"{shown} {words} the {side} {limit:.4g}.")


def judge_champion(project: Criteria, rows: DataSet, answers: Answers, champion: Answers | None) -> Gate:
    """G7: non-inferiority, paired by row or group. A missing champion is said aloud."""
    goal, n = project.goal, len(rows)
    if champion is None:
        return Gate(gate="G7", verdict="skipped", n=n, sentence="First: there is no champion to compare with.")
    margin = goal.noninferior_margin
    for who, broken in (("model's", not_finite(answers)), ("champion's", not_finite(champion))):
        if broken:
            sentence = f"{broken} of the {who} {n} answers are not finite numbers: the two cannot be compared."
            return Gate(gate="G7", verdict="fail" if who == "model's" else "inconclusive", value=broken, limit=0, n=n, sentence=sentence)
    delta = paired_interval(
        goal.metric, rows.label, answers, champion, rows.group, goal, project.search.seed, rows.classes, margin
    )  # fmt: skip
    verdict: Verdict = "pass" if delta.lower > -margin else "fail" if delta.upper < -margin else "inconclusive"
    better = "differs from" if METRICS[goal.metric].greater_is_better else "is lower (better) than"
    sentence = f"{_name(goal.metric)} {better} the champion's by {_bounded(delta, '+')} on the same {n} rows, margin {margin:.4g}."
    if verdict == "inconclusive" and delta.rows_needed > n:
        sentence += f" Needs about {delta.rows_needed} rows, had {n}."
    return judged("G7", verdict, delta, -margin, sentence)


def _name(metric: str) -> str:
    words = {"auc": "AUC", "rmse": "RMSE", "mae": "MAE", "r2": "R2", "f1": "F1"}
    return words.get(metric, metric.replace("_", " ").capitalize())


def _bounded(interval: Interval, sign: str = "") -> str:
    return f"{interval.value:{sign}.4g} [{interval.lower:{sign}.4g}, {interval.upper:{sign}.4g}]"
