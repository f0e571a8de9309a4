"""A skops file judged before it is opened: what skops does not ask of types that we trust.

A file may name any loader for a type. Some loaders call what they are given (constructors, keys of dictionaries), so that a trusted name is
something that a file can have called, with arguments of its choice, while it is opened. Here each trusted type is let in only by the loader
that skops saves it with, and a partial only where it is the very one that scikit-learn makes.
"""

import json
from collections.abc import Iterator
from io import BytesIO
from typing import Any, Final
from zipfile import ZipFile

from edgefleet.errors import ArtifactError
from edgefleet.skops_types import CHECK_ARRAY, LOADERS, PARTIAL

Node = dict[str, Any]

_SCHEMA: Final = "schema.json"
_LOADER: Final = "__loader__"
_NUMBER: Final = "__id__"
_KINDS: Final = ("numpy.float64", "numpy.float32")
_FINITE: Final = {"ensure_all_finite", "force_all_finite"}
_FINITE_VALUES: Final = ("false", "true", '"allow-nan"')


def check_nodes(content: bytes, name: str) -> None:
    """Refuse a file that uses a type of `skops_types` for something else than scikit-learn does; nothing is imported or built.

    To be called behind `check_archive`, and before the file is opened.

    Args:
        content: The skops file.
        name: What errors call it.

    Raises:
        ArtifactError: It does, or is unreadable; what.
    """
    try:
        with ZipFile(BytesIO(content)) as archive:
            schema: Any = json.loads(archive.read(_SCHEMA))
        nodes = list(_nodes(schema))
        reason = _loaded_otherwise(nodes) or _partials(nodes) or _numbered_twice(nodes)
    except Exception as err:  # zipfile, json and nodes that lack what all nodes have raise their own
        raise ArtifactError(f"{name}: not a readable skops file: {type(err).__name__}: {str(err)[:200]}; save the model again") from err
    if reason:
        raise ArtifactError(f"{name} {reason}; it is not opened: save a model of scikit-learn's own parts with skops")


def _loaded_otherwise(nodes: list[Node]) -> str:
    for node in nodes:
        kind, loader = _type_of(node), node[_LOADER]
        if LOADERS.get(kind, loader) != loader or (loader == "PartialNode" and kind != PARTIAL):
            return f"has {kind[:80]!r} made by {str(loader)[:40]!r}, which no model of scikit-learn has"
    return ""


def _partials(nodes: list[Node]) -> str:
    """Partials are scikit-learn's check of rows, and the function of that check stands nowhere else."""
    partials = [node for node in nodes if node[_LOADER] == "PartialNode"]
    if not all(_is_check_of_rows(partial["content"]) for partial in partials):
        return "holds a functools.partial that is not scikit-learn's check of rows"
    inside = {id(partial["content"]["func"]) for partial in partials}
    if any(_type_of(node) == CHECK_ARRAY and id(node) not in inside for node in nodes):
        return "holds the function check_array outside of scikit-learn's check of rows"
    return ""


def _numbered_twice(nodes: list[Node]) -> str:
    """What stands where skops takes another object: for a number that it has met it takes the object that it met."""
    in_partials = {part.get(_NUMBER) for node in nodes if node[_LOADER] == "PartialNode" for part in _nodes(node)}
    first: dict[Any, Node] = {}
    for node in nodes:
        number = node.get(_NUMBER)
        other = first.setdefault(number, node) if number else node
        trusted = {_type_of(node), _type_of(other)} & set(LOADERS)
        differ = (_type_of(node), node[_LOADER]) != (_type_of(other), other[_LOADER])
        if (trusted and differ) or (number in in_partials and _plain(node) != _plain(other)):
            return f"has two different objects of the number {str(number)[:40]}"
    return ""


def _nodes(schema: Any) -> Iterator[Node]:
    """Every node of the tree, in the order of the file; without recursion, a file may be nested deeply."""
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if _LOADER in value:
                yield value
            waiting.extend(reversed(value.values()))
        elif isinstance(value, list):
            waiting.extend(reversed(value))


def _type_of(node: Node) -> str:
    return f"{node['__module__']}.{node['__class__']}"


def _plain(value: Any) -> Any:
    """The node without the numbers of its objects."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items() if key != _NUMBER}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _is_check_of_rows(content: Any) -> bool:
    """Whether a partial is check_array(dtype=..., ensure_all_finite=...), and nothing else."""
    found = _plain(content)
    named: dict[str, Any] = found["kwds"]["content"]
    if set(named) - _FINITE - {"dtype"}:
        return False
    keys = _node("builtins.list", "ListNode", content=[_node("builtins.str", "TypeNode")] * len(named))
    wanted = {
        "func": _node(CHECK_ARRAY, "FunctionNode"),
        "args": _node("builtins.tuple", "TupleNode", content=[]),
        "kwds": _node("builtins.dict", "DictNode", content=named, key_types=keys),
        "namespace": _json("null"),
    }
    kinds = [_node(kind, "TypeNode") for kind in _KINDS]
    dtypes = [*kinds, *(_node("builtins.list", "ListNode", content=[kind]) for kind in kinds)]
    finite = [_json(value) for value in _FINITE_VALUES]
    return found == wanted and all(value in (dtypes if key == "dtype" else finite) for key, value in named.items())


def _node(kind: str, loader: str, **more: Any) -> Node:
    module, _, name = kind.rpartition(".")
    return {"__class__": name, "__module__": module, _LOADER: loader, **more}


def _json(text: str) -> Node:
    return _node("builtins.str", "JsonNode", content=text, is_json=True)
