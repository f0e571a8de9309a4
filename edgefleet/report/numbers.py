# ruff: noqa: RUF001, RUF002  # real dashes and minus signs are what this module is for
"""Numbers as reports write them: three significant digits, grouped thousands, a real minus sign, the unit after a no-break space."""

import math
from typing import Final

ABSENT: Final = "–"
_NO_BREAK: Final = "\u00a0"
_BYTES: Final = ((1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB"))


def number(value: float | None, digits: int = 3) -> str:
    """A number for people.

    Whole numbers keep all digits; others are rounded to `digits` significant ones; beyond a million or below a ten-thousandth as a power.

    >>> [number(v) for v in (1234567, 0.96249, -12.34, 5.0e-7, 1.5e9, None)]
    ['1,234,567', '0.962', '−12.3', '5e−7', '1.5e9', '–']
    """
    if value is None or math.isnan(value):
        return ABSENT
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e6):
        written = f"{int(value):,}"
    elif 1e-4 <= abs(value) < 1e6:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        written = f"{value:,.{decimals}f}"
    else:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        written = f"{mantissa}e{int(exponent)}"
    return written.replace("-", "−")


def percent(fraction: float | None) -> str:
    r"""A share as a percentage, one decimal below 10 %.

    >>> [percent(v) for v in (0.0312, 0.5, 1.0, 0.0, 0.0001)]
    ['3.1\xa0%', '50\xa0%', '100\xa0%', '0\xa0%', '0.01\xa0%']
    """
    if fraction is None or math.isnan(fraction):
        return ABSENT
    value = fraction * 100
    if value in (0, 100):
        return f"{value:.0f}{_NO_BREAK}%"
    # A share that only rounds to nothing or to all must not read as if it were.
    if abs(value) < 0.1 or 99.5 <= value < 100:
        return f"{value:.2g}{_NO_BREAK}%" if abs(value) < 0.1 else f"{min(value, 99.99):.2f}{_NO_BREAK}%"
    return f"{value:.1f}{_NO_BREAK}%" if value < 10 else f"{value:.0f}{_NO_BREAK}%"


def interval(value: float | None, low: float | None, high: float | None) -> str:
    """A value with its two-sided 95 % interval.

    >>> interval(0.85, 0.82, 0.88), interval(3, None, None)
    ('0.850 (0.820 to 0.880)', '3')
    """
    return number(value) if low is None or high is None else f"{number(value)} ({number(low)} to {number(high)})"


def between(low: float | None, high: float | None) -> str:
    """An interval alone.

    >>> between(0.82, 0.88), between(None, 1.0)
    ('0.820 to 0.880', '–')
    """
    return ABSENT if low is None or high is None else f"{number(low)} to {number(high)}"


def size(value: float | None) -> str:
    r"""Bytes for people, decimal units.

    >>> size(5_242_880), size(812)
    ('5.24\xa0MB', '812\xa0bytes')
    """
    if value is None:
        return ABSENT
    for factor, unit in _BYTES:
        if value >= factor:
            return f"{number(value / factor)}{_NO_BREAK}{unit}"
    return f"{number(value)}{_NO_BREAK}bytes"


def duration(seconds: float | None) -> str:
    r"""Seconds for people; absent where nobody knows them.

    >>> [duration(v) for v in (6.1e-05, 0.0042, 12.34, 6720, float("inf"))]
    ['61\xa0µs', '4.20\xa0ms', '12.3\xa0s', '1\xa0h 52\xa0min', '–']
    """
    if seconds is None or not math.isfinite(seconds):
        return ABSENT
    if seconds < 0.001:
        return f"{number(round(seconds * 1e6, 6))}{_NO_BREAK}µs"
    if seconds < 1:
        return f"{number(seconds * 1000)}{_NO_BREAK}ms"
    if seconds < 120:
        return f"{number(seconds)}{_NO_BREAK}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}{_NO_BREAK}h {minutes}{_NO_BREAK}min" if hours else f"{minutes}{_NO_BREAK}min"
