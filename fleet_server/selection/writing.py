"""The one text of a selection: equal selections have equal texts, and reading a text gives the selection back."""

import re
from typing import Final

from edgefleet.digests import sha256_hex
from fleet_server.selection.terms import Devices, Either, Every, Group, Has, Label, Not, Selection

ALL_DEVICES: Final = "all devices"
MAX_LOGGED: Final = 400
WORDS: Final = frozenset({"and", "or", "not", "in"})
# What stands without quotes: nothing that is syntax.
_PLAIN = re.compile(r"""[^\s()'",=!<>&|\\]+""")


def written(selection: Selection) -> str:
    """The selection as text; everybody is `all devices`.

    >>> from fleet_server.selection.reading import read_selection
    >>> written(read_selection("not (site in (b, a) or hardware==pi4) and has(line)"))
    'has(line) and not (hardware = pi4 or site in (a, b))'
    """
    return _text(selection) or ALL_DEVICES


def _text(selection: Selection) -> str:
    match selection:
        case Label(key, values):
            return f"{quoted(key)} {_compared('=', 'in', values)}"
        case Not(Label(key, values)):
            return f"{quoted(key)} {_compared('!=', 'not in', values)}"
        case Has(key):
            return f"has({quoted(key)})"
        case Group(name):
            return f"group({quoted(name)})"
        case Devices(device_ids):
            return f"device({_listed(device_ids)})"
        case Not(part):
            return f"not {_bracketed(part)}"
        case Every(parts):
            return " and ".join(sorted(_bracketed(part) if isinstance(part, Either) else _text(part) for part in parts))
        case Either(parts):
            return " or ".join(sorted(_text(part) for part in parts))


def _compared(one: str, several: str, values: tuple[str, ...]) -> str:
    return f"{one} {quoted(values[0])}" if len(values) == 1 else f"{several} ({_listed(values)})"


def _bracketed(part: Selection) -> str:
    return f"({_text(part)})" if isinstance(part, Every | Either) else _text(part)


def _listed(values: tuple[str, ...]) -> str:
    return ", ".join(quoted(value) for value in values)


def quoted(word: str) -> str:
    """The word, in quotes where it would be read as syntax."""
    if _PLAIN.fullmatch(word) and word not in WORDS:
        return word
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def meant(asked: Selection, resolved: Selection) -> str:
    """What a person wrote, and what it means where that is something else, for the log."""
    return logged(written(asked)) if asked == resolved else f"{logged(written(asked))}, that is {logged(written(resolved))}"


def logged(text: str) -> str:
    """A selection as an entry of the log has room for it, and for what follows: a long one by its beginning and its digest."""
    if len(text) <= MAX_LOGGED:
        return text
    return f"{text[:MAX_LOGGED]}… ({len(text)} characters, sha256 {sha256_hex(text.encode())})"
