"""Answers -> a message's bytes, in the encoding of the request. NaN and infinity are null."""

import json
import math
from typing import Any, Final

import msgspec

from device_agent.doors.mqtt.request import MAX_PAYLOAD_BYTES, Encoding
from device_agent.explanation import Explanation
from device_agent.score import BatchScores, Score, outlier_if_known
from edgefleet.errors import RowRejected

CONTENT_TYPES: Final[dict[Encoding, str]] = {"json": "application/json", "msgpack": "application/msgpack"}
TOP: Final = 3
MAX_SHOWN: Final = 80

Reply = dict[str, Any]


def of_score(score: Score, names: list[str] | None) -> Reply:
    """A single answer; with probabilities by class where `names` are given."""
    found: Reply = {
        "status": score.status,
        "label": score.label,
        "score": _number(score.score),
        "margin": _number(score.margin),
        "outlier": outlier_if_known(score),
        "digest": score.digest,
    }
    if names and score.probabilities is not None:
        found["probabilities"] = dict(zip(names, map(_number, score.probabilities.tolist()), strict=True))
    if score.explanation is not None:
        found["explanation"] = _explanation(score.explanation)
    return found


def of_batch(scores: BatchScores, names: list[str] | None) -> list[Reply]:
    """One answer for each row, in order."""
    labels, numbers, margins = scores.label.tolist(), scores.score.tolist(), scores.margin.tolist()
    outliers = [None] * len(scores) if scores.outlier is None else scores.outlier.tolist()
    found: list[Reply] = []
    for i in range(len(scores)):
        if i in scores.rejected:
            found.append(of_refusal(scores.rejected[i]))
            continue
        one: Reply = {
            "status": "ok",
            "label": labels[i],
            "score": _number(numbers[i]),
            "margin": _number(margins[i]),
            "outlier": outliers[i],
        }
        if names:
            one["probabilities"] = dict(zip(names, map(_number, scores.probabilities[i].tolist()), strict=True))
        found.append(one)
    return found


def of_refusal(err: RowRejected) -> Reply:
    """A row or a message that was refused: which input, what stood there, what would have been accepted."""
    return failure("rejected", err.reason, str(err)) | {"feature": err.feature, "value": str(err.value)[:MAX_SHOWN], "limit": err.limit}


def failure(status: str, reason: str, error: str, **more: Any) -> Reply:
    """An answer that is none: `status` is `rejected` or `shed`."""
    return {"status": status, "reason": reason, "error": error, **more}


def encode(reply: Reply, encoding: Encoding) -> bytes:
    """Bytes for the wire; a reply that no broker would take becomes one that says so."""
    content = _encoded(reply, encoding)
    if len(content) <= MAX_PAYLOAD_BYTES:
        return content
    error = f"the answer has {len(content)} bytes, at most {MAX_PAYLOAD_BYTES} are sent; the rows were scored, send fewer at once"
    counts = {name: reply[name] for name in ("id", "offered", "scored", "rejected") if name in reply}
    return _encoded(failure("rejected", "answer-size", error, limit=MAX_PAYLOAD_BYTES) | counts, encoding)


def _encoded(reply: Reply, encoding: Encoding) -> bytes:
    if encoding == "msgpack":
        return msgspec.msgpack.encode(reply)
    return json.dumps(reply, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()


def _explanation(explanation: Explanation) -> list[Reply]:
    """The strongest inputs; of a window in time segments also when each moved the margin."""
    found: list[Reply] = []
    for name, moved in explanation.top(TOP):
        entry: Reply = {"input": name, "contribution": _number(moved)}
        if explanation.segments is not None:
            entry["segments"] = explanation.plain_segments(explanation.names.index(name))
        found.append(entry)
    return found


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
