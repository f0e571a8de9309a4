"""MLflow's `/invocations`: what `mlflow models serve` takes, answered with records; a missing number is null, never the word NaN."""

from typing import Any

import numpy as np

from device_agent.doors.http.counters import Tally
from device_agent.doors.http.exchange import TEXT, Refused, Request, Response, json_response
from device_agent.doors.http.frames import rows_of_csv, rows_of_json
from device_agent.doors.http.inference import decompressed
from device_agent.doors.http.rows import Answers, Models, answer_rows, outputs_of, retry_swapped, running_model
from device_agent.doors.http.settings import Limits
from device_agent.scorer import Scorer


class WrongContentType(Refused):
    """A body of another kind; MLflow answers it in plain text."""


def invocations(models: Models, request: Request, limits: Limits, tally: Tally) -> Response:
    """Answer the rows of a body in one of MLflow's forms.

    Raises:
        Refused: For everything that is wrong with it.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind not in ("application/json", "text/csv"):
        raise WrongContentType(415, f"Content-Type {kind[:80]!r} is not read here; send application/json or text/csv", "malformed")
    body = decompressed(request, limits.body_bytes)
    read = rows_of_csv if kind == "text/csv" else rows_of_json

    def attempt() -> tuple[Scorer, Answers | None]:
        scorer = running_model(models)
        rows = read(body, scorer.bundle.manifest, limits.elements)
        if not rows:
            tally.offered = 0
            return scorer, None
        return scorer, answer_rows(models, rows, tally, limits.work_s, scorer)

    scorer, answers = retry_swapped(attempt)
    return json_response({"predictions": [] if answers is None else records(scorer, answers)})


def records(scorer: Scorer, answers: Answers) -> list[dict[str, Any]]:
    """One object a row; a refused row has `error` and nulls."""
    columns: dict[str, list[Any]] = {}
    for output in outputs_of(scorer):
        values = answers.column(output.name)
        columns[output.name] = values.tolist() if isinstance(values, np.ndarray) else values
    found = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    for number, refusal in answers.rejected.items():
        found[number] = {**dict.fromkeys(columns), "error": str(refusal)}
    return found


def error_response(err: Refused) -> Response:
    """MLflow's form of an error."""
    if isinstance(err, WrongContentType):
        return Response(err.status, f"{err}\n".encode(), TEXT, err.headers)
    code = "BAD_REQUEST" if err.status < 500 else "TEMPORARILY_UNAVAILABLE" if err.status == 503 else "INTERNAL_ERROR"
    return json_response({"error_code": code, "message": str(err)}, err.status, err.headers)
