"""One column type: int64 microseconds UTC. A database's own timestamps lose the offset (SQLite) or the meaning (local time)."""

from datetime import UTC, datetime
from typing import Final

import sqlalchemy as sa

Micros: Final = sa.BigInteger


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970 of an aware datetime.

    Raises:
        ValueError: The datetime is naive, so nobody knows what moment it means.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; use aware datetimes in UTC")
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def from_micros(micros: int) -> datetime:
    """Aware UTC datetime of a stored time; absurd device clocks are clamped to the years 1970 to 9999."""
    seconds, rest = divmod(min(max(micros, 0), 253_402_300_799_000_000), 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)
