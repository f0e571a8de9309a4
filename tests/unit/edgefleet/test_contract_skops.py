"""Crafted .skops files: what they would have called is refused before anything of the file is built."""

import copy
import functools
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

from converter.originals import load_skops
from edgefleet.errors import ArtifactError, InputError
from edgefleet.skops_nodes import check_nodes
from edgefleet.skops_types import TRUSTED_TYPES
from trainer.importers.runtimes import open_file

Node = dict[str, Any]


@functools.cache
def honest() -> bytes:
    """Histogram boosting with a column of categories: the model that holds a partial of `check_array`."""
    import skops.io
    from sklearn.ensemble import HistGradientBoostingClassifier

    draw = np.random.default_rng(0)
    x = np.column_stack([draw.normal(size=200), np.arange(200) % 4])
    content: bytes = skops.io.dumps(HistGradientBoostingClassifier(categorical_features=[1], max_iter=3).fit(x, x[:, 0] > 0))
    return content


def crafted(change: Callable[[Node], None]) -> bytes:
    """The same file with another schema."""
    changed = BytesIO()
    with ZipFile(BytesIO(honest())) as source, ZipFile(changed, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "schema.json":
                schema = json.loads(content)
                change(schema)
                content = json.dumps(schema).encode()
            target.writestr(name, content)
    return changed.getvalue()


def partials(schema: Node) -> list[Node]:
    found, waiting = [], [schema]
    while waiting:
        value: Any = waiting.pop()
        if isinstance(value, dict):
            found += [value] if value.get("__loader__") == "PartialNode" else []
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return found


def node(kind: str, loader: str, **more: Any) -> Node:
    module, _, name = kind.rpartition(".")
    return {"__class__": name, "__module__": module, "__loader__": loader, **more}


def text(value: Any) -> Node:
    return node("builtins.str", "JsonNode", content=json.dumps(value), is_json=True)


def values(*items: Node, kind: str = "list") -> Node:
    return node(f"builtins.{kind}", f"{kind.capitalize()}Node", content=list(items))


def pairs(content: dict[str, Node], keys: list[Node]) -> Node:
    return node("builtins.dict", "DictNode", content=content, key_types=values(*keys))


def made(kind: str, *arguments: Node) -> Node:
    """A type or function that is called while the file is opened."""
    return node(kind, "ConstructorFromReduceNode", content=values(*arguments, kind="tuple"))


TEXT = node("builtins.str", "TypeNode")


def each_partial(change: Callable[[Node], None]) -> Callable[[Node], None]:
    def every(schema: Node) -> None:
        for partial in partials(schema):
            change(partial)

    return every


def function(kind: str, loader: str) -> Callable[[Node], None]:
    return each_partial(lambda partial: partial["content"].update(func=node(kind, loader)))


def keyword(name: str, value: Node) -> Callable[[Node], None]:
    def change(partial: Node) -> None:
        # A number of its own: skops would otherwise take the untouched arguments of the other partial.
        kwds = {key: copy.deepcopy(one) for key, one in partial["content"]["kwds"].items() if key != "__id__"}
        kwds["content"][name] = value
        kwds["key_types"] = values(*[TEXT] * len(kwds["content"]))
        partial["content"]["kwds"] = kwds

    return each_partial(change)


def beside(value: Node) -> Callable[[Node], None]:
    """One more value among the model's attributes."""

    def change(schema: Node) -> None:
        attributes = schema["content"]
        attributes["content"]["extra"] = value
        attributes["key_types"]["content"].append(TEXT)

    return change


def number_of_another(schema: Node) -> None:
    """The function looks as it should, but its number is that of an object which is met before."""
    first = copy.deepcopy(schema["content"]["content"])
    schema["content"]["content"] = {"extra": node("numpy.add", "FunctionNode", __id__=4711), **first}
    schema["content"]["key_types"]["content"].append(TEXT)
    for partial in partials(schema):
        partial["content"]["func"]["__id__"] = 4711


CHECK = "sklearn.utils.validation.check_array"
# What skops itself would open with the list of names, and what is said of it.
OPENED: dict[str, tuple[Callable[[Node], None], str]] = {
    "arguments": (each_partial(lambda p: p["content"].update(args=values(text(1), kind="tuple"))), "partial"),
    "a gigabyte for each value": (keyword("dtype", text("S1000000000")), "partial"),
    "an estimator as argument": (keyword("estimator", node("sklearn.linear_model._base.LinearRegression", "ObjectNode")), "partial"),
    "a function that skops trusts": (function("numpy.add", "FunctionNode"), "partial"),
    "a type that skops trusts": (function("builtins.list", "TypeNode"), "partial"),
    "attributes": (each_partial(lambda p: p["content"].update(namespace=pairs({"name": text(1)}, [TEXT]))), "partial"),
    "a partial under another name": (each_partial(lambda p: p.update(node("numpy.dtype", "PartialNode"))), "'numpy.dtype' made by"),
    "a partial by its constructor": (beside(made("functools.partial", node("builtins.int", "TypeNode"))), "made by"),
    "the check called while opened": (beside(made(CHECK, values(values(text(1))))), "made by"),
    "the check as a key's type": (beside(pairs({"1": text(1)}, [node(CHECK, "FunctionNode")])), "outside of"),
    "the number of another object": (number_of_another, "two different objects"),
}
COMMAND = node("posix.system", "FunctionNode")
SYSTEM: dict[str, Callable[[Node], None]] = {
    "function": function("posix.system", "FunctionNode"),
    "function by another module": function("os.system", "FunctionNode"),
    "type": function("posix.system", "TypeNode"),
    "constructor": beside(made("posix.system", text("touch called"))),
    "key": beside(pairs({"touch called": text(1)}, [COMMAND])),
    "constructor of a partial": beside(made("functools.partial", COMMAND, text("touch called"))),
}


def test_the_honest_file_is_opened_and_answers() -> None:
    check_nodes(honest(), "model")

    assert load_skops(honest(), "model").predict([[3.0, 1.0]]).tolist() == [True]


@pytest.mark.parametrize("name", SYSTEM)
def test_a_command_is_never_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = crafted(SYSTEM[name])
    (tmp_path / "model.skops").write_bytes(content)

    with pytest.raises(ArtifactError):
        load_skops(content, "model")
    with pytest.raises((ArtifactError, InputError)):
        open_file("skops", tmp_path / "model.skops")

    assert [path.name for path in tmp_path.iterdir()] == ["model.skops"]


@pytest.mark.parametrize("name", OPENED)
def test_a_trusted_name_is_used_as_scikit_learn_uses_it_or_not_at_all(name: str, tmp_path: Path) -> None:
    import skops.io

    change, reason = OPENED[name]
    content = crafted(change)
    (tmp_path / "model.skops").write_bytes(content)

    # Names alone do not refuse it.
    assert set(skops.io.get_untrusted_types(data=content)) <= set(TRUSTED_TYPES)
    with pytest.raises(ArtifactError, match=reason):
        load_skops(content, "model")
    with pytest.raises(ArtifactError, match=reason):
        open_file("skops", tmp_path / "model.skops")


@pytest.mark.parametrize("content", [b"PK\x05\x06" + bytes(18), b"rubbish"], ids=["no schema", "no archive"])
def test_a_file_without_a_schema_is_said_to_be_unreadable(content: bytes) -> None:
    with pytest.raises(ArtifactError, match="not a readable skops file"):
        check_nodes(content, "model")
