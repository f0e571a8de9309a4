"""Requests of the Open Inference Protocol, one a line, as `mlserver infer` reads them; one response a line comes back, in order.

A line that cannot be answered gets `{"parameters": {"batch_index": n}, "error": {"status": ..., "msg": ...}}`; single refused rows of a
request are empty in the outputs and named in the output `error`, as the HTTP door answers them. Tensors are JSON, flat or nested.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from device_agent.batching import RUNTIME_FAILED
from device_agent.doors.batch.lines import Line
from device_agent.doors.batch.rows import BadRow, Chunk, Tally
from device_agent.doors.batch.text import NdjsonSource
from device_agent.doors.batch.windows import Windows
from device_agent.doors.oip.columns import MATRIX, rows_of
from device_agent.doors.oip.tensors import ReadTensor, TensorRefused, read_tensors
from device_agent.doors.stream import ParsedRow
from device_agent.score import BatchScores
from device_agent.scorer import Scorer
from edgefleet.errors import ArtifactError, RowRejected

MAX_VALUES: Final = 1_048_576


@dataclass
class LineAnswer:
    """The answer to one request."""

    response: dict[str, Any]
    tally: Tally
    bad: list[BadRow] = field(default_factory=list)


class OipSource(NdjsonSource):
    """Lines of requests."""

    def _row(self, line: Line) -> ParsedRow:
        request = super()._row(line)
        if not isinstance(request, dict) or not isinstance(request.get("inputs"), list) or not request["inputs"]:
            raise RowRejected(None, str(request)[:80], "a JSON object with a list 'inputs' of tensors", "type")
        return request


class LocalLines:
    """Answers requests with a scorer.

    Attributes:
        windows: None: a request brings whole windows.
    """

    windows: Windows | None = None

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def answer(self, chunk: Chunk) -> LineAnswer:
        """Answer the one request of a chunk."""
        request = chunk.rows[0]
        if isinstance(request, RowRejected):
            return refusal(chunk, None, request)
        manifest = self._scorer.bundle.manifest
        try:
            rows = rows_of(manifest, read_tensors(tensors_of(request["inputs"]), memoryview(b""), MAX_VALUES), MAX_VALUES)
            said = self._scorer.score_batch(rows)
            outputs = _chosen(self._outputs(said), request.get("outputs"))
        except TensorRefused as err:
            answer = refusal(chunk, request, RowRejected(None, "a request", str(err), err.reason), rows_in(request))
            answer.response["error"]["msg"] = str(err)
            return answer
        except RowRejected as err:
            return refusal(chunk, request, err, rows_in(request))
        except ArtifactError as err:
            failed = RowRejected(None, str(err)[:200], "rows that the model can answer", RUNTIME_FAILED)
            return refusal(chunk, request, failed, rows_in(request))
        rejected: dict[str, int] = {}
        for refused in said.rejected.values():
            rejected[refused.reason] = rejected.get(refused.reason, 0) + 1
        outliers = 0 if said.outlier is None else int(said.outlier.sum())
        tally = Tally(len(said), len(said) - len(said.rejected), 0, rejected, outliers)
        response = {"model_name": manifest.project, "model_version": "1", **_id_of(request), "parameters": place_of(chunk)}
        bad = [BadRow(chunk.first, chunk.lines[0], refused) for _, refused in sorted(said.rejected.items())]
        return LineAnswer(response | {"outputs": outputs}, tally, bad)

    def _outputs(self, said: BatchScores) -> dict[str, dict[str, Any]]:
        n, found = len(said), {}
        if self._scorer.decision.labels:
            found["label"] = _tensor("label", "BYTES", [n], [label or "" for label in said.label])
        for name in ("score", "margin"):
            found[name] = _tensor(name, "FP32", [n], _plain(getattr(said, name)))
        if said.probabilities.shape[1]:
            found["probabilities"] = _tensor("probabilities", "FP32", list(said.probabilities.shape), _plain(said.probabilities.ravel()))
        if said.outlier is not None:
            found["outlier"] = _tensor("outlier", "BOOL", [n], said.outlier.tolist())
        if said.rejected:
            found["error"] = _tensor("error", "BYTES", [n], [str(said.rejected.get(i, "")) for i in range(n)])
        return found


def is_request(line: bytes, names: Sequence[str]) -> bool:
    """Whether a line is a request rather than a row of a model with these inputs."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and isinstance(value.get(MATRIX), list) and MATRIX not in names


def refusal(
    chunk: Chunk, request: dict[str, Any] | None, err: RowRejected, rows: int = 1, status: str = "preprocessing error"
) -> LineAnswer:
    """The answer to a request of which no row is answered."""
    response = {**_id_of(request or {}), "parameters": place_of(chunk), "error": {"status": status, "msg": str(err)}}
    return LineAnswer(response, Tally(rows, 0, 0, {err.reason: rows}), [BadRow(chunk.first, chunk.lines[0], err)])


def as_lines(answer: LineAnswer) -> bytes:
    """The response as a line."""
    return json.dumps(answer.response, allow_nan=False).encode() + b"\n"


def place_of(chunk: Chunk) -> dict[str, int]:
    """Which request it was, from 0, in the words of `mlserver infer`."""
    return {"batch_index": chunk.first - 1}


def rows_in(request: dict[str, Any]) -> int:
    """Rows that a request offers, 1 where it does not say."""
    first = request["inputs"][0]
    shape = first.get("shape") if isinstance(first, dict) else None
    return shape[0] if isinstance(shape, list) and shape and type(shape[0]) is int and 0 < shape[0] <= MAX_VALUES else 1


def tensors_of(inputs: list[Any]) -> list[ReadTensor]:
    """The tensors of a request whose line was read already.

    Raises:
        TensorRefused: One is no tensor.
    """
    found = []
    for i, one in enumerate(inputs):
        try:
            told = msgspec.Raw(msgspec.json.encode({**one}.get("parameters")))
            found.append(msgspec.convert({**one, "data": msgspec.Raw(), "parameters": told, "values": one.get("data")}, ReadTensor))
        except (TypeError, msgspec.ValidationError) as err:
            raise TensorRefused(f"inputs[{i}] is no object with name, shape and datatype: {str(err)[:120]}") from err
    return found


def _chosen(outputs: dict[str, dict[str, Any]], asked: Any) -> list[dict[str, Any]]:
    if not asked:
        return list(outputs.values())
    names = [one.get("name") if isinstance(one, dict) else None for one in asked] if isinstance(asked, list) else [None]
    for name in names:
        if not isinstance(name, str) or name not in outputs:
            raise RowRejected(None, f"output {str(name)[:60]!r}", f"outputs among {', '.join(outputs)}", "count")
    return [outputs[name] for name in dict.fromkeys(names) if name is not None]


def _tensor(name: str, kind: str, shape: list[int], content: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": kind, "shape": shape, "data": content}


def _plain(values: NDArray[np.float32]) -> list[float | None]:
    return [float(text) if text[-1].isdigit() else None for text in values.astype("U16").tolist()]


def _id_of(request: dict[str, Any]) -> dict[str, str]:
    return {"id": request["id"]} if isinstance(request.get("id"), str) else {}
