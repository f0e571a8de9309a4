"""JSON in which no object names a member twice: of two values for one input nobody can say which one was meant."""

import json
import re
from typing import Any, Final

# Every name of a member ends so; a text may hold it too, so that there can be more of them than names, never fewer.
_END_OF_NAME: Final = re.compile(rb'"\s*:')
_SPACED: Final = (b'" ', b'"\n', b'"\t', b'"\r')


class NamedTwice(ValueError):
    """An object has two members of one name.

    Attributes:
        name: The name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"{name[:80]!r} comes twice")


def read_json(content: bytes) -> Any:
    """What UTF-8 bytes say, NaN and infinities included.

    Raises:
        NamedTwice: An object has two members of one name.
        ValueError: No JSON, or no UTF-8.
        RecursionError: Nested too deeply.
    """
    return _decoder.decode(content.decode())


def check_names(content: bytes, names: int) -> None:
    """Look for names that come twice in a document that another reader took.

    Args:
        content: The document.
        names: How many names its objects have there.

    Raises:
        NamedTwice: There is one.
    """
    if content.count(b'":') == names and not any(spaced in content for spaced in _SPACED):
        return  # the usual case, ten times as quick
    if sum(1 for _ in _END_OF_NAME.finditer(content)) > names:
        read_json(content)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise NamedTwice(name)
            seen.add(name)
    return found


_decoder = json.JSONDecoder(object_pairs_hook=_unique)
