"""How numbers and times are written: three significant digits, grouped, with their unit, and never without their age.

Everything here is a pure function of its arguments; `now` is an aware UTC datetime.
"""

import math
from datetime import datetime
from typing import Final

from markupsafe import Markup

MINUS: Final = "\u2212"
NO_BREAK: Final = "\u00a0"
_SUPERSCRIPT: Final = str.maketrans("0123456789", "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
_WORDS: Final = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")
_FEW: Final = 50


def number(value: float | None) -> str:
    """A number for people: integers grouped, millions shortened, else three significant digits.

    >>> number(10000), number(1_240_000), number(0.03127), number(-2.5)
    ('10,000', '1.24\u00a0M', '0.0313', '\u22122.5')
    """
    if value is None or math.isnan(value):
        return "unknown"
    if math.isinf(value):
        return "\u221e" if value > 0 else f"{MINUS}\u221e"
    sign, size = (MINUS if value < 0 else ""), abs(value)
    if size >= 1e6:
        scale, letter = (1e9, "G") if size >= 1e9 else (1e6, "M")
        return f"{sign}{size / scale:.3g}{NO_BREAK}{letter}"
    if size == int(size) or size >= 1000:
        return f"{sign}{round(size):,}"
    digits = max(0, min(6, 2 - math.floor(math.log10(size))))
    text = f"{size:.{digits}f}"
    return sign + (text.rstrip("0").rstrip(".") if "." in text else text)


def signed(value: float) -> str:
    """A contribution: always with its sign, two decimals.

    >>> signed(1.42), signed(-0.444), signed(0.0)
    ('+1.42', '\u22120.44', '0.00')
    """
    text = f"{abs(value):.2f}"
    if float(text) == 0:
        return text
    return f"{'+' if value > 0 else MINUS}{text}"


def share(count: int, total: int) -> str:
    """A share: `5 of 38` below n = 50, else a percentage; never rounds an imperfect share to 100 %.

    >>> share(5, 38), share(14, 363), share(967, 1000), share(9996, 10000)
    ('5 of 38', '3.9\u00a0%', '97\u00a0%', '99.9\u00a0%')
    """
    if total < _FEW:
        return f"{count} of {total}"
    percent = 100 * count / total
    if count == total or 10 <= percent < 99:
        return f"{percent:.0f}{NO_BREAK}%"
    # Cut, not rounded, so that 99.96 % does not claim to be everything.
    return f"{math.floor(percent * 10 + 0.5 if percent < 10 else percent * 10) / 10:.1f}{NO_BREAK}%"


def e_value(value: float) -> str:
    """Evidence: two digits, above a million as a power of ten.

    >>> e_value(0.301), e_value(3123.0), e_value(2.5e7)
    ('0.30', '3,100', '10\u2077')
    """
    if math.isnan(value):
        return "unknown"
    if value >= 1e6:
        return "\u221e" if math.isinf(value) else "10" + str(math.floor(math.log10(value))).translate(_SUPERSCRIPT)
    if value < 0.01:
        return "<0.01"
    if value >= 10:
        rounded = round(value, 1 - math.floor(math.log10(value)))
        return f"{rounded:,.0f}"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}"


def milliseconds(value: float | None) -> str:
    """A latency with its unit."""
    return "none yet" if value is None else f"{number(value)}{NO_BREAK}ms"


def size(size_bytes: int) -> str:
    """Bytes as kB or MB (powers of ten).

    >>> size(312), size(1_840_000)
    ('312\u00a0B', '1.84\u00a0MB')
    """
    for limit, unit in ((1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")):
        if size_bytes >= limit:
            return f"{number(size_bytes / limit)}{NO_BREAK}{unit}"
    return f"{size_bytes}{NO_BREAK}B"


def counted(count: int, one: str, many: str = "") -> str:
    """A count with its noun: `1 device`, `3 devices`."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def in_words(count: int) -> str:
    """A count that begins a sentence: `Four`, or `14` beyond ten."""
    return _WORDS[count] if count < len(_WORDS) else number(count)


def short_digest(digest: str) -> Markup:
    """The first eight digits of a digest in two groups, the whole one on hover."""
    if not digest:
        return Markup("<span class=note>none</span>")
    return Markup('<code title="{}">{} {}</code>').format(digest, digest[:4], digest[4:8])


def exact(at: datetime) -> str:
    """The full time, for hover: `23 Nov 2026 14:32:06 UTC`."""
    return f"{at.day} {at:%b %Y %H:%M:%S} UTC"


def age_words(at: datetime, now: datetime) -> str:
    """Relative below an hour, clock today, else the date; a device's clock may run ahead of ours: that is `now`."""
    seconds = (now - at).total_seconds()
    if seconds < 1:
        return "now"
    if seconds < 60:
        return f"{int(seconds)}{NO_BREAK}s ago"
    if seconds < 3600:
        return f"{seconds // 60:.0f}{NO_BREAK}min ago"
    return clock(at, now)


def clock(at: datetime, now: datetime) -> str:
    """Time of day today, day and time this year, else the date."""
    if at.date() == now.date():
        return f"{at:%H:%M:%S}"
    return f"{at.day} {at:%b} {at:%H:%M}" if at.year == now.year else f"{at.day} {at:%b %Y}"


def age(at: datetime | None, now: datetime) -> Markup:
    """`<time>` that the page's script keeps counting."""
    if at is None:
        return Markup("never")
    return Markup('<time datetime="{}" title="{}" data-age>{}</time>').format(_machine(at), exact(at), age_words(at, now))


def moment(at: datetime | None, now: datetime) -> Markup:
    """`<time>` that stays as it is: lines of a log."""
    if at is None:
        return Markup("never")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(_machine(at), exact(at), clock(at, now))


def _machine(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"
