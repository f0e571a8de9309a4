"""Escaped HTML. `Html` is text that is already safe; every other text goes through `text` or an attribute of `element`."""

import html
from typing import Final


class Html(str):
    """Text that is safe inside HTML; a type of its own, so that a table's cell can tell it from text that must be escaped."""

    __slots__ = ()


EMPTY: Final = Html("")


def text(value: object) -> Html:
    """Any value as escaped text; control characters, which HTML does not allow, become a visible sign.

    >>> text("<b> & co")
    '&lt;b&gt; &amp; co'
    """
    clean = "".join(sign if sign.isprintable() or sign in "\n\t\u00a0\u2009\u202f" else "\ufffd" for sign in str(value))
    return Html(html.escape(clean, quote=True))


def element(name: str, *children: Html, **attributes: object) -> Html:
    """`<name ...>children</name>`; attributes are escaped, None leaves one out, `_` in a name becomes `-`, a last `_` goes (`class_`).

    >>> element("p", text("5 < 6"), class_="note", title=None)
    '<p class="note">5 &lt; 6</p>'
    """
    written = "".join(
        f' {key.removesuffix("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items() if value is not None
    )  # fmt: skip
    return Html(f"<{name}{written}>{''.join(children)}</{name}>")


def join(*pieces: Html) -> Html:
    """Pieces one after the other."""
    return Html("".join(pieces))
