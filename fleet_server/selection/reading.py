"""Read a selection as people write it; each refusal says where the text stops making sense, and what would make some.

    selection = either
    either    = every { "or" every }
    every     = part { "and" part }
    part      = "not" part | "(" either ")" | "has" "(" KEY ")" | "group" "(" NAME ")" | "device" "(" ID { "," ID } ")"
              | KEY ( "=" | "==" | "!=" ) VALUE | KEY [ "not" ] "in" "(" VALUE { "," VALUE } ")"

The operators are those of Kubernetes' label selectors, and mean the same; `and`, `or`, `not` and brackets are added.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from edgefleet.errors import InputError
from edgefleet.identifiers import check_id
from fleet_server.labels import check_labels
from fleet_server.selection.terms import Group, Has, Selection, devices, either, every, label, negated
from fleet_server.selection.writing import WORDS

MAX_CHARACTERS: Final = 16_384
MAX_NAMES: Final = 1_000  # keys, values, groups and device ids together
MAX_DEPTH: Final = 20
_SHOWN: Final = 30
_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<sign>==|!=|[=(),])|(?P<word>[^\s()'",=!<>&|\\]+)|(?P<other>\S))"""
)
_OTHER: Final = {
    "&": "write `and`", "|": "write `or`", "!": "write `not` or `!=`", "'": "a quote is not closed", '"': "a quote is not closed",
    "<": "labels are texts, they have no order: write `in (…)`", ">": "labels are texts, they have no order: write `in (…)`",
}  # fmt: skip


@dataclass(frozen=True)
class _Token:
    text: str
    kind: str  # word | quoted | sign | end
    at: int  # character, from 1


def read_selection(text: str) -> Selection:
    """Read an expression, for example `site in (hall-1, hall-2) and hardware != pi3`.

    Args:
        text: At most MAX_CHARACTERS; values with spaces or signs stand in quotes.

    Raises:
        InputError: It is empty, too long, too deep, or no selection; the message says at which character.
    """
    if not text.strip():
        raise InputError("the selection is empty; write for example `site = hall-1`, or leave it away to select every device")
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"the selection has {len(text)} characters, the limit is {MAX_CHARACTERS}; give the devices a label instead")
    reader = _Reader(_tokens(text), text)
    found = reader.either(0)
    reader.expect("end", "`and`, `or`, or the end")
    return found


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:  # only white space is left
            break
        position = token.end()
        kind = str(token.lastgroup)
        at = token.start(kind) + 1
        if kind == "other":
            remedy = _OTHER.get(token[kind], "put values with signs in quotes")
            raise InputError(f"selection: {token[kind]!r} at character {at} is not understood: {remedy}")
        content = re.sub(r"\\(.)", r"\1", token[kind][1:-1]) if kind == "quoted" else token[kind]
        found.append(_Token(content, kind, at))
    return [*found, _Token("", "end", len(text) + 1)]


class _Reader:
    """Recursive descent, one method for each rule of the grammar."""

    def __init__(self, tokens: list[_Token], text: str) -> None:
        self._tokens, self._text = tokens, text
        self._next = self._names = 0

    def either(self, depth: int) -> Selection:
        return self._joined("or", either, self._every, depth)

    def _every(self, depth: int) -> Selection:
        return self._joined("and", every, self._part, depth)

    def _joined(self, word: str, join: Callable[[list[Selection]], Selection], inner: Callable[[int], Selection], depth: int) -> Selection:
        parts = [inner(depth)]
        while self._is("word", word):
            self._take()
            parts.append(inner(depth))
        return join(parts)

    def _within(self, inner: Callable[[int], Selection], depth: int) -> Selection:
        if depth > MAX_DEPTH:
            raise InputError(f"selection: more than {MAX_DEPTH} brackets and `not` lie within each other; write it flatter")
        return inner(depth)

    def _part(self, depth: int) -> Selection:
        if self._is("word", "not"):
            self._take()
            return negated(self._within(self._part, depth + 1))
        if self._is("sign", "("):
            self._take()
            found = self._within(self.either, depth + 1)
            self.expect("sign", "`and`, `or` or `)`", ")")
            return found
        if self._is("word") and self._tokens[self._next + 1] == _Token("(", "sign", self._tokens[self._next + 1].at):
            return self._called(self._take())
        return self._compared()

    def _called(self, name: _Token) -> Selection:
        if name.text not in ("has", "group", "device"):
            self._refuse(name, "`has(label)`, `group(name)`, `device(id)`, or an operator behind a label")
        names = self._list()
        if name.text == "device":
            return devices(check_id(one, "device") for one in names)
        if len(names) != 1:
            raise InputError(f"selection: {name.text}(…) at character {name.at} takes one name, not {len(names)}; join several by `or`")
        return Has(check_id(names[0], "label")) if name.text == "has" else Group(check_id(names[0], "group"))

    def _compared(self) -> Selection:
        first = self._tokens[self._next]
        if first.kind == "word" and first.text not in WORDS and first.text.lower() in WORDS:
            self._refuse(first, f"`{first.text.lower()}`, in small letters")
        key = check_id(self._name("a label, `not`, `has(…)`, `group(…)`, `device(…)` or `(`"), "label")
        operator = self._take()
        if operator.kind == "sign" and operator.text in ("=", "==", "!="):
            found = label(key, [_value(key, self._name(f"a value of {key}"))])
            return negated(found) if operator.text == "!=" else found
        without = operator.kind == "word" and operator.text == "not"
        if without:
            operator = self._take()
        if operator.kind != "word" or operator.text != "in":
            self._refuse(operator, f"`=`, `!=`, `in (…)` or `not in (…)` behind the label {key!r}")
        found = label(key, [_value(key, one) for one in self._list()])
        return negated(found) if without else found

    def _list(self) -> list[str]:
        self.expect("sign", "`(`", "(")
        found = [self._name("a value")]
        while self._is("sign", ","):
            self._take()
            found.append(self._name("a value"))
        self.expect("sign", "`,` or `)`", ")")
        return found

    def _name(self, wanted: str) -> str:
        token = self._take()
        if token.kind not in ("word", "quoted"):
            self._refuse(token, wanted)
        if token.kind == "word" and token.text in WORDS:
            self._refuse(token, f"{wanted}; a word of the language stands in quotes where it is a name")
        self._names += 1
        if self._names > MAX_NAMES:
            raise InputError(f"the selection names more than {MAX_NAMES} labels, values and devices; give the devices a label instead")
        return token.text

    def _is(self, kind: str, text: str | None = None) -> bool:
        token = self._tokens[self._next]
        return token.kind == kind and (text is None or token.text == text)

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def expect(self, kind: str, wanted: str, text: str | None = None) -> None:
        """Take this token or refuse."""
        if not self._is(kind, text):
            self._refuse(self._take(), wanted)
        self._take()

    def _refuse(self, token: _Token, wanted: str) -> NoReturn:
        found = "it ends" if token.kind == "end" else f"{token.text[:_SHOWN]!r} stands"
        # Into logs and terminals too: what does not print there is a space here.
        shown = "".join(one if one.isprintable() else " " for one in self._text[max(0, token.at - 1 - _SHOWN) : token.at - 1])
        before = " ".join(shown.split())
        raise InputError(
            f"selection: {found} at character {token.at}{f' behind `{before}`' if before else ''}, expected {wanted}"
            + (". A value with spaces or signs stands in quotes." if token.kind == "word" else "")
        )


def _value(key: str, value: str) -> str:
    return check_labels({key: value})[key]
