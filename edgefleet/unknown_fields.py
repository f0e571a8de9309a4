"""Fields of a signed document that this side does not know: refused, unless the document itself says that they may be ignored.

Who signs decides what may be left undone by a receiver that is older than he is: `may_ignore` names such fields by their path, `*` for any
key or element (`models.*.trial.warmup_s`). What is not named there must be understood. Naming a field that is known changes nothing.
"""

from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect

from edgefleet import __version__
from edgefleet.errors import ArtifactError

LIST_NAME: Final = "may_ignore"
MAX_NAMES: Final = 64
MAX_NAME_CHARS: Final = 128
_NAMED: Final = 5

T = TypeVar("T", bound=msgspec.Struct)
_Names = list[str]


class _Said(msgspec.Struct):
    may_ignore: list[str] = []


def decode_signed(content: bytes, kind: type[T], what: str) -> T:
    """Parse a document whose signature was verified.

    Args:
        content: JSON.
        kind: What it must be.
        what: Its name in messages.

    Raises:
        ArtifactError: Malformed, or it has a field that is neither known here nor named as one that may be ignored.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        unknown, bare = _divided(content, kind)
        found = _decoded(bare, kind) if unknown else None
        if found is None:
            raise ArtifactError(f"{what}: malformed: {str(err)[:200]}") from err
        needed = sorted(set(unknown) - set(_may_ignore(content, what)))
    if needed:
        listed = ", ".join(name[:MAX_NAME_CHARS] for name in needed[:_NAMED]) + (" and more" if len(needed) > _NAMED else "")
        raise ArtifactError(f"{what}: this agent {__version__} does not know {listed}, which must be understood; update the agent")
    return found


def unknown_fields(content: bytes, kind: type[msgspec.Struct]) -> list[str]:
    """Paths of the fields of a document that `kind` does not have, sorted.

    >>> class Point(msgspec.Struct):
    ...     x: int
    >>> unknown_fields(b'{"x": 1, "y": 2, "may_ignore": ["y"]}', Point)
    ['y']
    """
    return sorted(set(_divided(content, kind)[0]))


def _divided(content: bytes, kind: type[msgspec.Struct]) -> tuple[_Names, Any]:
    """Paths of unknown fields, and the document without them."""
    try:
        raw = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [], None
    unknown: _Names = []
    bare = _known(raw, inspect.type_info(kind), "", unknown)
    return [name for name in unknown if name != LIST_NAME], bare


def _known(value: Any, kind: inspect.Type, path: str, unknown: _Names) -> Any:
    """The value without fields that its type does not have; their paths are appended to `unknown`."""
    if isinstance(kind, inspect.UnionType):
        kind = next((one for one in kind.types if isinstance(one, inspect.StructType)), kind)
    if isinstance(kind, inspect.StructType) and isinstance(value, dict):
        types = {field.encode_name: field.type for field in kind.fields}
        unknown.extend(path + name for name in value if name not in types)
        return {name: _known(part, types[name], f"{path}{name}.", unknown) for name, part in value.items() if name in types}
    if isinstance(kind, inspect.DictType) and isinstance(value, dict):
        return {name: _known(part, kind.value_type, f"{path}*.", unknown) for name, part in value.items()}
    if isinstance(kind, inspect.ListType) and isinstance(value, list):
        return [_known(part, kind.item_type, f"{path}*.", unknown) for part in value]
    return value


def _decoded(bare: Any, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(msgspec.json.encode(bare), type=kind)
    except msgspec.DecodeError:
        return None


def _may_ignore(content: bytes, what: str) -> _Names:
    try:
        names = msgspec.json.decode(content, type=_Said).may_ignore
    except msgspec.DecodeError as err:
        raise ArtifactError(f"{what}: malformed: {str(err)[:200]}") from err
    if len(names) > MAX_NAMES or any(len(name) > MAX_NAME_CHARS for name in names):
        limits = f"{MAX_NAMES} names of {MAX_NAME_CHARS} characters"
        raise ArtifactError(f"{what}: malformed: {LIST_NAME} exceeds the limit of {limits}; the server must send less")
    return names
