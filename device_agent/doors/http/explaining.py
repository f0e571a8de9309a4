"""`<model>.explainer`: infer on it answers what moved each row's margin, by the explainer that the bundle carries.

A row that is explained is scored and counted like any other: label and score come with the contributions, nobody has to ask twice.
"""

import time
from typing import Any, Final

import numpy as np

from device_agent.doors.http.columns import rows_of
from device_agent.doors.http.counters import SHED, Tally
from device_agent.doors.http.exchange import RETRY, Refused, Request, Response
from device_agent.doors.http.inference import read_request, read_tensors, respond, wanted_outputs
from device_agent.doors.http.rows import Models, Output, Rows, retry_swapped, running_model
from device_agent.doors.http.settings import Limits
from device_agent.score import Score
from device_agent.scorer import Scorer
from edgefleet.errors import ArtifactError, ConfigError, RowRejected

SUFFIX: Final = ".explainer"


def explainer_outputs(scorer: Scorer) -> tuple[Output, ...]:
    """What an explainer answers.

    `contributions` are in the order of the model's inputs, in margin units; base + sum(contributions) + gap = margin of the label.
    `error` is the half-width of the 95 % interval of each, 0 when exact, NaN when too few samples tell. `segments` are there for windows in
    time segments, the oldest first; which rows each covers stands in the metadata's `segment_rows_back`.
    """
    features = (len(scorer.bundle.manifest.inputs),)
    found = [Output("contributions", "FP64", features), Output("base", "FP64"), Output("gap", "FP64"), Output("error", "FP64", features)]
    found += [Output("segments", "FP64", (len(scorer.segment_rows_back), *features))] if scorer.segment_rows_back else []
    found += [Output("label", "BYTES")] if scorer.decision.labels else []
    return (*found, Output("score", "FP32"), Output("margin", "FP32"))


def explain(models: Models, version: str, request: Request, limits: Limits, tally: Tally) -> Response:
    """Answer an `infer` request to the explainer.

    Raises:
        Refused: For everything that is wrong with it; a refused row refuses the request.
    """
    asked, tail = read_request(request, limits.body_bytes)

    def attempt() -> tuple[Scorer, list[Output], list[Score]]:
        scorer = running_model(models)
        if not scorer.can_explain:
            raise Refused(404, f"variant {scorer.variant.name} carries no explainer; convert the package with an explanation", "no-model")
        wanted = wanted_outputs(asked.outputs, explainer_outputs(scorer), 0)
        rows = rows_of(scorer, read_tensors(asked.inputs, tail, limits.elements), limits.elements)
        if len(rows) > limits.explained_rows:
            raise Refused(413, f"{len(rows)} rows to explain exceed the limit of {limits.explained_rows} a request", "elements")
        return scorer, wanted, _explained(models, scorer, rows, tally, limits.work_s)

    scorer, wanted, scores = retry_swapped(attempt)
    columns = {output.name: _column(scores, output) for output in wanted} if scores else {}
    return respond(asked, scorer.bundle.manifest.project + SUFFIX, version, wanted, columns)


def _explained(models: Models, scorer: Scorer, rows: Rows, tally: Tally, work_s: float) -> list[Score]:
    tally.offered, tally.scored = len(rows), 0
    deadline, scores = time.monotonic() + work_s, list[Score]()
    for i, row in enumerate(rows):
        if i and time.monotonic() > deadline:
            raise Refused(503, f"{i} of {len(rows)} explanations took the {work_s:g} s that a request may take", SHED, RETRY)
        try:
            score = models.score(row, explain=True, made_for=scorer)
        except RowRejected as err:
            raise Refused(400, str(err) if len(rows) == 1 else f"row {i}: {err}", err.reason) from err
        except ConfigError as err:
            raise Refused(503, str(err), "no-model", RETRY) from err
        except ArtifactError as err:
            raise Refused(500, str(err), "runtime") from err
        tally.scored += 1
        scores.append(score)
    return scores


def _column(scores: list[Score], output: Output) -> Any:
    if output.name == "label":
        return [score.label or "" for score in scores]
    if output.name in ("score", "margin"):
        return [getattr(score, output.name) for score in scores]
    told = [score.explanation for score in scores if score.explanation is not None]
    if output.name == "error":
        return np.array([np.full(output.shape, np.nan) if one.error is None else one.error for one in told], np.float64)
    return np.array([getattr(one, output.name) for one in told], np.float64)
