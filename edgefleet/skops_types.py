"""Types that a skops file may hold beside skops' own list of safe ones: parts of scikit-learn that hold numbers and run no code.

`TRUSTED_TYPES` alone would be too wide. skops asks whether a name is on the list, not what a file does with it: a file may name any loader
for it, and some loaders call what they are given (constructors, keys of dictionaries), so that each name is something a file can have called
with arguments of its choice. `check_nodes` therefore lets each of these types in only by the loader that skops saves it with, and a partial
only where it is the very one that scikit-learn makes.
"""

import json
from collections.abc import Iterator
from io import BytesIO
from typing import Any, Final
from zipfile import ZipFile

from edgefleet.errors import ArtifactError

_PARTIAL: Final = "functools.partial"
_CHECK_ARRAY: Final = "sklearn.utils.validation.check_array"
# Type: skops' loader of it.
_LOADERS: Final = {
    # Histogram boosting with sets of categories checks its rows by a `partial` of `check_array`.
    _PARTIAL: "PartialNode",
    "numpy.dtype": "DTypeNode",
    "sklearn.calibration._CalibratedClassifier": "ObjectNode",
    "sklearn.calibration._SigmoidCalibration": "ObjectNode",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor": "ObjectNode",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer": "ObjectNode",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer": "ObjectNode",
    "sklearn.tree._tree.Tree": "TreeNode",
    "sklearn.utils._bunch.Bunch": "DictNode",
    _CHECK_ARRAY: "FunctionNode",
}
TRUSTED_TYPES: Final = tuple(_LOADERS)

_SCHEMA: Final = "schema.json"
_NODE: Final = "__loader__"
_NUMBER: Final = "__id__"
_KINDS: Final = ("numpy.float64", "numpy.float32")
_FINITE: Final = {"ensure_all_finite", "force_all_finite"}
_FINITE_VALUES: Final = ("false", "true", '"allow-nan"')


def check_nodes(content: bytes, name: str) -> None:
    """Refuse a file that uses one of `TRUSTED_TYPES` for something else than scikit-learn does. Nothing is imported or built.

    To be called behind `check_archive` and before the file is opened with `TRUSTED_TYPES`.

    Args:
        content: The skops file.
        name: What errors call it.

    Raises:
        ArtifactError: It does; what.
    """
    try:
        with ZipFile(BytesIO(content)) as archive:
            schema: Any = json.loads(archive.read(_SCHEMA))
        _check(schema, name)
    except ArtifactError:
        raise
    except Exception as err:  # zipfile, json and unexpected nodes each raise their own
        raise ArtifactError(f"{name}: not a readable skops file: {type(err).__name__}: {str(err)[:200]}; save the model again") from err


def _check(schema: Any, name: str) -> None:
    numbered: dict[Any, list[dict[str, Any]]] = {}
    partials: list[dict[str, Any]] = []
    for node in _nodes(schema):
        if node.get(_NUMBER):
            numbered.setdefault(node[_NUMBER], []).append(node)
        kind, loader = _type_of(node), node[_NODE]
        if _LOADERS.get(kind, loader) != loader or (loader == "PartialNode" and kind != _PARTIAL):
            raise ArtifactError(
                f"{name}: has {kind[:80]!r} made by {str(loader)[:40]}, scikit-learn's models do not; save the model again with skops"
            )
        if loader == "PartialNode":
            partials.append(node)
    allowed = set()
    for partial in partials:
        if not _is_check_of_rows(partial["content"]):
            raise ArtifactError(f"{name}: holds a functools.partial that is not scikit-learn's check of rows, and it is not opened")
        allowed.add(id(partial["content"]["func"]))
        # skops reads a number that it has met before as the object that it met, whatever stands here.
        for part in _nodes(partial):
            if any(_plain(part) != _plain(other) for other in numbered.get(part.get(_NUMBER), ())):
                raise ArtifactError(f"{name}: two different objects have the number {str(part[_NUMBER])[:40]}; save the model again")
    for node in _nodes(schema):
        again = node[_NODE] == "CachedNode" and any(_type_of(other) == _CHECK_ARRAY for other in numbered.get(node.get(_NUMBER), ()))
        if again or (_type_of(node) == _CHECK_ARRAY and id(node) not in allowed):
            raise ArtifactError(f"{name}: holds the function check_array outside of scikit-learn's check of rows, and it is not opened")
    for nodes in numbered.values():
        kinds = {(_type_of(node), node[_NODE]) for node in nodes if node[_NODE] != "CachedNode"}
        if len(kinds) > 1 and any(kind in _LOADERS for kind, _ in kinds):
            raise ArtifactError(f"{name}: objects of two types have the number {str(nodes[0][_NUMBER])[:40]}; save the model again")


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Every node of the tree; without recursion, a file may be nested deeply."""
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if _NODE in value:
                yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _type_of(node: dict[str, Any]) -> str:
    return f"{node['__module__']}.{node['__class__']}"


def _plain(value: Any) -> Any:
    """The node without the numbers of its objects."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items() if key != _NUMBER}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _is_check_of_rows(content: Any) -> bool:
    """Whether a partial is check_array(dtype=..., ensure_all_finite=...), and nothing else."""
    found = _plain(content)
    function = {"__class__": "check_array", "__module__": "sklearn.utils.validation", _NODE: "FunctionNode"}
    if found["func"] != function or found["args"] != _node("builtins.tuple", "TupleNode", content=[]):
        return False
    if found["namespace"] != _json("null") or set(found["kwds"]["content"]) - _FINITE - {"dtype"}:
        return False
    named: dict[str, Any] = found["kwds"]["content"]
    text = _node("builtins.str", "TypeNode")
    keys = _node("builtins.list", "ListNode", content=[text] * len(named))
    if found["kwds"] != _node("builtins.dict", "DictNode", content=named, key_types=keys):
        return False
    kinds = [_node(kind, "TypeNode") for kind in _KINDS]
    dtypes = [*kinds, *(_node("builtins.list", "ListNode", content=[kind]) for kind in kinds)]
    finite = [_json(value) for value in _FINITE_VALUES]
    return all(value in (dtypes if key == "dtype" else finite) for key, value in named.items())


def _node(kind: str, loader: str, **more: Any) -> dict[str, Any]:
    module, _, name = kind.rpartition(".")
    return {"__class__": name, "__module__": module, _NODE: loader, **more}


def _json(text: str) -> dict[str, Any]:
    return _node("builtins.str", "JsonNode", content=text, is_json=True)
