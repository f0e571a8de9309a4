"""What the inputs of project.toml must obey; a part of `limits.py`."""

import math
import unicodedata
from collections.abc import Iterator
from typing import Final

from edgefleet.errors import ConfigError
from edgefleet.manifest import MAX_INPUTS, Input
from trainer.settings import Source, Window

MAX_CATEGORIES: Final = 10_000


def check_inputs(inputs: list[Input]) -> None:
    """Refuse inputs that contradict themselves.

    Raises:
        ConfigError: No or two equal names, a range upside down, a category without categories.
    """
    names: set[str] = set()
    for column in inputs:
        if not column.name:
            raise ConfigError("project.toml: an input of [schema] has an empty name")
        if column.name in names:
            raise ConfigError(f"project.toml: two inputs have the same name {column.name!r}; a pattern needs {{0}}, {{1}} for each side")
        names.add(column.name)
        for problem in _input_problems(column):
            raise ConfigError(f"project.toml: input {column.name!r}: {problem}")


def check_columns_apart(data: Source, inputs: list[Input]) -> None:
    """Refuse an answer, a row's name or its split as an input.

    Raises:
        ConfigError: One of them is an input: the model would learn what it cannot know on the device.
    """
    named = {"data.label": data.label, "data.id": data.id}
    if data.splits.method == "column":
        named["data.split"] = data.split
    names = {column.name for column in inputs}
    for key, column in named.items():
        if column and column in names:
            raise ConfigError(f"project.toml: column {column!r} is {key} and an input; take it out of [schema]")


def check_size(inputs: int, window: Window | None) -> None:
    """Refuse a row that is too large for the formats.

    Raises:
        ConfigError: More than MAX_INPUTS values in one row or window.
    """
    values = inputs * (1 if window is None else window.rows)
    if values > MAX_INPUTS:
        raise ConfigError(f"project.toml: {values} values in one row or window exceed the limit of {MAX_INPUTS}; take fewer inputs or rows")


def _input_problems(column: Input) -> Iterator[str]:
    if any(limit is not None and not math.isfinite(limit) for limit in (column.low, column.high)):
        yield "low and high must be finite; leave them out where there is no limit"
    if column.low is not None and column.high is not None and column.low > column.high:
        yield f"low = {column.low:g} is above high = {column.high:g}"
    if column.kind == "number" and column.categories:
        yield "categories are for kind = 'category'"
    if column.kind != "category":
        return
    if not 1 <= len(column.categories) <= MAX_CATEGORIES:
        yield f"{len(column.categories)} categories, expected 1 to {MAX_CATEGORIES}; group the rare ones in the source"
    if len(set(column.categories)) != len(column.categories):
        yield "a category is named twice"
    if any(unicodedata.normalize("NFC", text) != text for text in column.categories):
        yield "categories must be in Unicode form NFC: the device compares them so"
    if column.low is not None or column.high is not None:
        yield "low and high are for kind = 'number'"
