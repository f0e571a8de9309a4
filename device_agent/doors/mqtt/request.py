"""A message's bytes -> rows. JSON or msgpack, told by the content type (MQTT 5) or else by the first byte.

| payload | what it is |
|---|---|
| `[1, 2]`, `{"speed": 1, "heat": 2}` | one row (of a model of windows: one window is `[[1, 2], [3, 4]]`) |
| a list of those | a batch |
| `{"rows": [...]}` or `{"row": ...}` with `id`, `key`, `explain`, `probabilities` | the same, with more said |
"""

from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from device_agent.doors.unique_names import NamedTwice, read_json
from edgefleet.errors import RowRejected

MAX_PAYLOAD_BYTES: Final = 262_144
MAX_ROWS: Final = 1024
MAX_ID_CHARACTERS: Final = 256
_ENVELOPE: Final = frozenset({"row", "rows", "id", "key", "explain", "probabilities"})
# Above it begin msgpack's arrays and maps; JSON's begin with characters below.
_FIRST_OF_MSGPACK: Final = 0x80

Encoding = Literal["json", "msgpack"]
_TYPES: Final[dict[str, Encoding]] = {
    "application/json": "json",
    "text/json": "json",
    "application/msgpack": "msgpack",
    "application/x-msgpack": "msgpack",
    "application/vnd.msgpack": "msgpack",
}
_packed = msgspec.msgpack.Decoder()


@dataclass(frozen=True)
class Request:
    """What a message asks.

    Attributes:
        rows: One row, or many where `batch`.
        batch: Whether the answer is a list.
        identity: Given back in the answer; None without one.
        key: See `Answering.score`.
        explain: Single rows only.
        probabilities: Whether the answer shall carry them.
    """

    rows: Any
    batch: bool
    identity: str | int | None = None
    key: str | int | None = None
    explain: bool = False
    probabilities: bool = False


def encoding_of(payload: bytes, content_type: str | None) -> Encoding:
    """How a payload is encoded, and its answer will be."""
    named = _TYPES.get((content_type or "").partition(";")[0].strip().lower())
    if named is not None:
        return named
    return "msgpack" if payload and payload[0] >= _FIRST_OF_MSGPACK else "json"


def read_request(payload: bytes, encoding: Encoding, row_depth: int) -> Request:
    """Read a message.

    Args:
        payload: Its bytes.
        encoding: As `encoding_of` says.
        row_depth: 1 for models of single rows, 2 for models of windows: how deep a row's list is.

    Raises:
        RowRejected: It is not readable, or no request; with value and limit.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise _refused(f"a message of {len(payload)} bytes", f"at most {MAX_PAYLOAD_BYTES} bytes; send fewer rows at once", "count")
    value = _parsed(payload, encoding)
    if isinstance(value, dict) and ("rows" in value or "row" in value) and set(value) <= _ENVELOPE:
        return _enveloped(value, row_depth)
    batch = _depth(value) > row_depth
    _check_batch(value, batch)
    return Request(value, batch)


def _parsed(payload: bytes, encoding: Encoding) -> Any:
    try:
        value = _packed.decode(payload) if encoding == "msgpack" else read_json(payload)
    except NamedTwice as err:
        raise RowRejected(err.name, "two values", "one value for each name", "count") from err
    except (msgspec.DecodeError, ValueError, RecursionError, TypeError) as err:
        raise _refused(
            f"{encoding} of {len(payload)} bytes: {str(err)[:60]}", "a row, a list of rows or an object of them", "type"
        ) from err
    if not isinstance(value, list | dict):
        raise _refused(value, "a row, a list of rows or an object of them", "type")
    return value


def _enveloped(value: dict[str, Any], row_depth: int) -> Request:
    batch = "rows" in value
    if batch and "row" in value:
        raise _refused("row and rows", "one of them", "type")
    rows = value["rows" if batch else "row"]
    if batch and not isinstance(rows, list):
        raise _refused(rows, "a list under rows", "type")
    _check_batch(rows, batch)
    for name in ("id", "key"):
        one = value.get(name)
        if one is not None and (isinstance(one, bool) or not isinstance(one, str | int) or len(str(one)) > MAX_ID_CHARACTERS):
            raise _refused(f"{name} {one!r}"[:80], f"a text or a whole number of at most {MAX_ID_CHARACTERS} characters", "type")
    for name in ("explain", "probabilities"):
        if not isinstance(value.get(name, False), bool):
            raise _refused(f"{name} {value[name]!r}"[:80], "true or false", "type")
    explain = value.get("explain", False)
    if explain and batch:
        raise _refused("explain with rows", "explain with a single row", "type")
    return Request(rows, batch, value.get("id"), value.get("key"), explain, value.get("probabilities", False))


def _check_batch(rows: Any, batch: bool) -> None:
    if batch and not 1 <= len(rows) <= MAX_ROWS:
        raise _refused(f"{len(rows)} rows", f"1 to {MAX_ROWS} rows a message", "count")


def _depth(value: Any) -> int:
    """Lists within lists, an object counting as one; of a list its first element tells. At most 4, which no row has."""
    depth = 0
    while isinstance(value, list | dict) and depth < 4:
        depth += 1
        if isinstance(value, dict) or not value:
            break
        value = value[0]
    return depth


def _refused(value: object, limit: str, reason: str) -> RowRejected:
    return RowRejected(None, value, limit, reason)
