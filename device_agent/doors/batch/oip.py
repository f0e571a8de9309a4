"""Requests of the Open Inference Protocol, one a line, as `mlserver infer` reads them; one response a line comes back, in order.

A line that cannot be answered gets `{"parameters": {"batch_index": n}, "error": {"status": ..., "msg": ...}}`; single refused rows of a
request are empty in the outputs and named in the output `error`, as the HTTP door answers them. Tensors are JSON, flat or nested.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from device_agent.batching import RUNTIME_FAILED
from device_agent.doors.batch.lines import Line
from device_agent.doors.batch.rows import BadRow, Chunk, Tally
from device_agent.doors.batch.text import NdjsonSource
from device_agent.doors.batch.windows import Windows
from device_agent.doors.stream import ParsedRow
from device_agent.score import BatchScores
from device_agent.scorer import Scorer
from edgefleet.errors import ArtifactError, RowRejected
from edgefleet.manifest import Manifest

MATRIX: Final = "inputs"
NUMBERS: Final = {"BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64"}
MAX_VALUES: Final = 1_000_000
_MAX_RANK: Final = 4


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
            rows = rows_of(manifest, request["inputs"])
            said = self._scorer.score_batch(rows)
            outputs = _chosen(self._outputs(said), request.get("outputs"))
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


def rows_of(manifest: Manifest, tensors: list[Any]) -> NDArray[Any] | list[Any]:
    """Rows for `Scorer.score_batch`, from one tensor `inputs` of all columns or one tensor a column.

    Raises:
        RowRejected: Tensors of other names, types or shapes.
    """
    named: dict[str, NDArray[Any]] = {}
    for tensor in tensors:
        name, values = _values(tensor)
        if name in named:
            raise RowRejected(name, "two tensors", "one tensor of each name", "count")
        named[name] = values
    names = [column.name for column in manifest.inputs]
    whole = (len(names),) if manifest.window_rows == 1 else (manifest.window_rows, len(names))
    if list(named) == [MATRIX] and MATRIX not in names:
        matrix = named[MATRIX]
        if manifest.window_rows == 1 and matrix.shape[1:] == tuple(manifest.shape):
            matrix = matrix.reshape(len(matrix), *whole)
        if matrix.shape[1:] != whole or matrix.dtype == object:
            raise RowRejected(MATRIX, f"{matrix.dtype} of shape {list(matrix.shape)}", f"numbers of shape {['n', *whole]}", "count")
        return matrix
    return _by_column(named, names, manifest.window_rows)


def _by_column(named: dict[str, NDArray[Any]], names: list[str], window_rows: int) -> list[Any]:
    if unknown := [name for name in named if name not in names]:
        raise RowRejected(unknown[0], "a tensor", f"the tensor {MATRIX!r}, or one tensor for each of the {len(names)} inputs", "count")
    n = len(next(iter(named.values())))
    if n * window_rows * len(names) > MAX_VALUES:  # those of columns that were not sent are made here
        raise RowRejected(None, f"{n} rows of {window_rows * len(names)} values", f"at most {MAX_VALUES} values; send fewer rows", "count")
    shape = (n,) if window_rows == 1 else (n, window_rows)
    columns = []
    for name in names:
        values = named.get(name, np.full(shape, None, object))
        if values.shape not in (shape, (*shape, 1)):
            raise RowRejected(name, f"shape {list(values.shape)}", f"shape {list(shape)}, that of a column", "count")
        columns.append(values.reshape(shape).astype(object))
    rows: list[Any] = np.stack(columns, axis=-1).tolist()
    return rows


def _values(tensor: Any) -> tuple[str, NDArray[Any]]:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise RowRejected(None, str(tensor)[:80], "tensors that are objects with a name", "type")
    name, kind, content = tensor["name"][:120], tensor.get("datatype"), tensor.get("data")
    shape = _shape(name, tensor.get("shape"))
    if kind not in NUMBERS and kind != "BYTES":
        raise RowRejected(name, f"datatype {str(kind)[:40]!r}", f"BYTES or one of {', '.join(sorted(NUMBERS))}", "type")
    if not isinstance(content, list):
        raise RowRejected(name, type(content).__name__, "a list 'data'", "type")
    flat = _flat(name, content, len(shape))
    if len(flat) != math.prod(shape):
        raise RowRejected(name, f"{len(flat)} values", f"{math.prod(shape)} values, as its shape says", "count")
    wanted = str if kind == "BYTES" else (int, float)
    for value in flat:
        if value is not None and not isinstance(value, wanted):
            raise RowRejected(name, repr(value)[:80], "texts" if kind == "BYTES" else "numbers, null where one is missing", "type")
    if kind == "BYTES":
        texts = np.empty(len(flat), object)
        texts[:] = flat
        return name, texts.reshape(shape)
    return name, np.array([np.nan if value is None else _number(value) for value in flat], np.float64).reshape(shape)


def _shape(name: str, shape: Any) -> list[int]:
    sizes = shape if isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape) else []
    if 1 <= len(sizes) <= _MAX_RANK and math.prod(max(size, 1) for size in sizes) <= MAX_VALUES:
        return sizes
    raise RowRejected(name, f"shape {str(shape)[:60]}", f"a list of 1 to {_MAX_RANK} sizes, of at most {MAX_VALUES} values", "count")


def _flat(name: str, values: list[Any], rank: int) -> list[Any]:
    for _ in range(rank - 1):
        if not any(isinstance(value, list) for value in values):
            break
        if not all(isinstance(value, list) for value in values):
            raise RowRejected(name, "lists beside values", "data that are flat, or nested as the shape says", "type")
        values = [inner for value in values for inner in value]
    return values


def _number(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond float64
        return math.inf if value > 0 else -math.inf


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
