"""`infer` of the Open Inference Protocol v2: request bytes -> rows -> answers -> response bytes, JSON and binary tensors.

The traps are those of real clients: tritonclient asks for binary outputs whenever the caller names none, kserve compares the content type
of errors as a whole, `mlserver infer` splits answers by their first dimension and stumbles over bare numbers in an output's parameters.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from device_agent.doors.http.columns import MATRIX, rows_of
from device_agent.doors.http.counters import Tally
from device_agent.doors.http.exchange import JSON, Refused, Request, Response
from device_agent.doors.http.foreign_json import with_json_literals
from device_agent.doors.http.rows import ERROR, Answers, Models, Output, answer_rows, outputs_of, retry_swapped, running_model
from device_agent.doors.http.settings import Limits
from device_agent.doors.http.tensors import Tensor, Values, bad, check_shape, decode, encode_binary, numbers, read_parameters
from device_agent.scorer import Scorer

MAX_TENSORS: Final = 65_536
MAX_OUTPUTS: Final = 64
MAX_ID_CHARACTERS: Final = 1024
_FLOATS: Final = ("FP32", "FP64")
# A number and its comma are shorter, whoever writes them.
_SHORT_BYTES: Final = 64


class Asked(msgspec.Struct):
    """An output that the request names."""

    name: str
    parameters: msgspec.Raw = msgspec.Raw()


class InferRequest(msgspec.Struct):
    """The JSON part of a request; members that the protocol allows and this door does not need are ignored."""

    inputs: list[Tensor]
    id: str | None = None
    parameters: msgspec.Raw = msgspec.Raw()
    outputs: list[Asked] | None = None


class _Out(msgspec.Struct, omit_defaults=True):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int] | None = None
    data: list[Any] | None = None


class _InferResponse(msgspec.Struct, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[_Out]
    id: str | None = None


_request_decoder = msgspec.json.Decoder(InferRequest)
_encoder = msgspec.json.Encoder()


def infer(models: Models, version: str, request: Request, limits: Limits, tally: Tally) -> Response:
    """Answer an `infer` request with the running model.

    Raises:
        Refused: For everything that is wrong with it.
    """
    asked, tail = read_request(request, limits.body_bytes)

    def attempt() -> tuple[Scorer, list[Output], Answers | None]:
        scorer = running_model(models)
        wanted = wanted_outputs(asked.outputs, (*outputs_of(scorer), ERROR), 1)
        rows = _single_row(scorer, asked.inputs) or rows_of(scorer, read_tensors(asked.inputs, tail, limits.elements), limits.elements)
        if len(rows) == 0:
            tally.offered = 0
            return scorer, wanted, None
        return scorer, wanted, answer_rows(models, rows, tally, limits.work_s, scorer)

    scorer, wanted, answers = retry_swapped(attempt)
    if not asked.outputs and answers is not None and answers.rejected:
        wanted.append(ERROR)
    columns = {} if answers is None else {output.name: answers.column(output.name) for output in wanted}
    return respond(asked, scorer.bundle.manifest.project, version, wanted, columns)


def read_request(request: Request, limit: int) -> tuple[InferRequest, memoryview]:
    """The JSON part, and the binary tail.

    Raises:
        Refused: Not readable, or beyond the limit when decompressed.
    """
    body = decompressed(request, limit)
    text = request.headers.get("inference-header-content-length")
    length = len(body) if text is None else int(text) if text.isascii() and text.isdigit() and len(text) < 18 else -1
    if not 0 <= length <= len(body):
        raise Refused(
            400, f"Inference-Header-Content-Length {str(text)[:40]!r} is not within the {len(body)} bytes of the body", "malformed"
        )
    try:
        asked = _decoded(body if length == len(body) else body[:length])
    except (msgspec.DecodeError, ValueError) as err:
        raise Refused(400, f"the JSON part of the request cannot be read: {str(err)[:200]}", "malformed") from err
    except RecursionError as err:
        raise Refused(400, "the JSON part of the request is nested too deeply; tensors have at most 4 dimensions", "malformed") from err
    if not asked.inputs:
        raise Refused(400, "the request has no inputs", "malformed")
    if len(asked.inputs) > MAX_TENSORS:
        raise Refused(413, f"{len(asked.inputs)} inputs exceed the limit of {MAX_TENSORS}", "elements")
    if asked.id is not None and len(asked.id) > MAX_ID_CHARACTERS:
        raise Refused(400, f"an id of {len(asked.id)} characters exceeds the limit of {MAX_ID_CHARACTERS}", "malformed")
    if len(asked.outputs or ()) > MAX_OUTPUTS:
        raise Refused(400, f"{len(asked.outputs or ())} outputs exceed the limit of {MAX_OUTPUTS}", "malformed")
    for one in (asked, *(asked.outputs or ())):
        read_parameters(one.parameters)  # what is wrong with them is said before rows are scored
    return asked, memoryview(body)[length:]


def _decoded(text: bytes) -> InferRequest:
    try:
        return _request_decoder.decode(text)
    except msgspec.DecodeError:
        if (mended := with_json_literals(text)) is None:
            raise
        return _request_decoder.decode(mended)


def decompressed(request: Request, limit: int) -> bytes:
    """The body, unpacked by its Content-Encoding; never more than the limit comes into being."""
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding == "identity":
        return request.body
    if encoding not in ("gzip", "deflate"):
        raise Refused(415, f"Content-Encoding {encoding[:40]!r} is not one of gzip, deflate, identity", "malformed")
    unpack = zlib.decompressobj(47)  # gzip or zlib, whichever its header says
    try:
        body = unpack.decompress(request.body, limit + 1)
    except zlib.error as err:
        raise Refused(400, f"the body is not {encoding}: {err}", "malformed") from err
    if len(body) > limit:
        raise Refused(413, f"the body is larger than {limit} bytes when unpacked; send fewer rows at once", "body-size")
    if not unpack.eof or unpack.unused_data:
        wrong = "is followed by other bytes" if unpack.eof else "is cut off"
        raise Refused(400, f"the {encoding} body {wrong} after {len(body)} unpacked bytes", "malformed")
    return body


def read_tensors(inputs: Sequence[Tensor], tail: memoryview, elements: int) -> dict[str, Values]:
    """All inputs by name.

    Raises:
        Refused: One of them is bad, a name comes twice, together they are beyond `elements`, or bytes are left over.
    """
    found: dict[str, Values] = {}
    for tensor in inputs:
        if tensor.name in found:
            raise bad(tensor.name, "it comes twice")
        count = check_shape(tensor, elements)
        elements -= count
        found[tensor.name], taken = decode(tensor, count, tail)
        tail = tail[taken:]
    if len(tail):
        raise Refused(400, f"{len(tail)} bytes are left after the last tensor", "malformed")
    return found


def wanted_outputs(asked: Sequence[Asked] | None, offered: Sequence[Output], hidden: int) -> list[Output]:
    """The outputs of the answer; all but the last `hidden` where the request names none.

    Raises:
        Refused: The model has no output of that name, or it is asked for twice.
    """
    if not asked:
        return list(offered[: len(offered) - hidden])
    by_name = {output.name: output for output in offered}
    if len(asked) > len(offered) or len({one.name for one in asked}) != len(asked):
        raise Refused(400, f"{len(asked)} outputs are asked for, some of them twice", "malformed")
    for one in asked:
        if one.name not in by_name:
            raise Refused(400, f"output {one.name[:80]!r} is not one of {', '.join(by_name)}", "malformed")
    return [by_name[one.name] for one in asked]


def respond(asked: InferRequest, model: str, version: str, wanted: Sequence[Output], columns: Mapping[str, Any]) -> Response:
    """The response; an absent column is an empty tensor."""
    default = read_parameters(asked.parameters).get("binary_data_output") is True
    binary = {one.name: read_parameters(one.parameters).get("binary_data", default) is True for one in asked.outputs or ()}
    outs, parts = [], []
    for output in wanted:
        values = columns.get(output.name, ())
        shape = [len(values), *output.shape]
        if binary.get(output.name, default):
            raw = encode_binary(values, output.datatype)
            parts.append(raw)
            outs.append(_Out(output.name, output.datatype, shape, {"binary_data_size": len(raw)}))
        else:
            outs.append(_Out(output.name, output.datatype, shape, None, _flat(values)))
    head = _encoder.encode(_InferResponse(model, version, outs, asked.id))  # NaN and infinity become null
    if not parts:
        return Response(200, head, JSON)
    length = (("Inference-Header-Content-Length", str(len(head))),)
    return Response(200, b"".join([head, *parts]), "application/octet-stream", length)


def _flat(values: Any) -> list[Any]:
    return values.ravel().tolist() if isinstance(values, np.ndarray) else list(values)


def _single_row(scorer: Scorer, inputs: Sequence[Tensor]) -> list[Any] | None:
    """The quick way of the most frequent request: one row of numbers in JSON. None for every other, and for what is wrong with it."""
    tensor, features = inputs[0], len(scorer.bundle.manifest.inputs)
    quick = len(inputs) == 1 and tensor.shape == [1, features] and tensor.name == MATRIX
    if not quick or tensor.datatype not in _FLOATS or bytes(tensor.parameters) or scorer.bundle.manifest.window_rows != 1:
        return None
    raw = bytes(tensor.data)
    if len(raw) > features * _SHORT_BYTES:
        return None
    try:
        row = numbers(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return [row] if len(row) == features else None
