"""Checks of a policy's values: each refusal names the key, the value, and what is accepted."""

import difflib
import math
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from edgefleet.errors import ConfigError

MAX_SECONDS: Final = 366 * 86_400.0


def check_seconds(name: str, value: float, least: float = 0.0) -> None:
    """Refuse what is no duration from `least` to a year."""
    if not (math.isfinite(value) and least <= value <= MAX_SECONDS):
        raise ConfigError(f"{name} = {value:g} is outside {least:g} to {MAX_SECONDS:g} seconds")


def check_whole(name: str, value: int, least: int = 0, most: int = 1_000_000_000) -> None:
    """Refuse a count outside its limits."""
    if not least <= value <= most:
        raise ConfigError(f"{name} = {value} is outside {least} to {most}")


def check_above(name: str, value: float, least: float, most: float) -> None:
    """Refuse a number that is not above `least` and at most `most`; NaN is neither."""
    if not least < value <= most:
        raise ConfigError(f"{name} = {value:g} must be above {least:g} and at most {most:g}")


def check_share(name: str, value: float) -> None:
    """Refuse what is no share strictly between nobody and everybody."""
    if not 0 < value < 1:
        raise ConfigError(f"{name} = {value:g} is no share above 0 and below 1; 5 % is 0.05")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def refuse_unknown(where: str, table: dict[str, Any], struct: type[msgspec.Struct]) -> None:
    """Refuse a key that the struct does not have, and say which one is near."""
    known = struct.__struct_fields__
    for key in table:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {str(key)[:60]!r}{did_you_mean(str(key), known)}; known: {', '.join(sorted(known))}")
