"""Cumulative waves as a policy writes them: device counts, then percentages. Integer arithmetic only."""

import itertools
from collections.abc import Sequence
from typing import Final

import msgspec

from edgefleet.errors import ConfigError

MAX_WAVES: Final = 64


class PlannedWave(msgspec.Struct, frozen=True):
    """One wave over a selection of known size.

    Attributes:
        devices: Cumulative number of devices.
        dwell_s: Least seconds it stays open.
    """

    devices: int
    dwell_s: float


def check_waves(waves: Sequence[int | str]) -> None:
    """Refuse waves that are no rising row of counts and percentages up to "100%".

    Raises:
        ConfigError: With the row and the remedy.
    """
    if not 0 < len(waves) <= MAX_WAVES:
        raise ConfigError(f"waves has {len(waves)} entries; use 1 to {MAX_WAVES}, for example [1, 3, '100%']")
    counts = [wave for wave in waves if isinstance(wave, int)]
    percents = [_percent(wave) for wave in waves if isinstance(wave, str)]
    if any(isinstance(wave, int) for wave in waves[len(counts) :]):
        raise ConfigError(f"waves {list(waves)}: device counts come first, percentages after them")
    if any(count < 1 for count in counts):
        raise ConfigError(f"waves {list(waves)}: a wave of {min(counts)} devices is empty; use 1 or more")
    rising = all(a < b for row in (counts, percents) for a, b in itertools.pairwise(row))
    if not rising:
        raise ConfigError(f"waves {list(waves)} do not increase: they are cumulative, each one includes the one before")
    if not percents or percents[-1] != 100:
        raise ConfigError(f"waves {list(waves)} do not cover the selection: the last one must be '100%'")


def planned(waves: Sequence[int | str], dwell_s: Sequence[float], devices: int, least: int = 1) -> tuple[PlannedWave, ...]:
    """The waves over a selection of so many devices; waves that would add nobody are merged into the one before (longest dwell wins).

    Args:
        waves: As checked.
        dwell_s: One per wave.
        devices: Of the selection.
        least: A wave reaches at least so many, or everybody.

    >>> planned((1, 3, "100%"), (0.0, 5.0, 0.0), 8)
    (PlannedWave(devices=1, dwell_s=0.0), PlannedWave(devices=3, dwell_s=5.0), PlannedWave(devices=8, dwell_s=0.0))
    """
    found: list[PlannedWave] = []
    for wave, dwell in zip(waves, dwell_s, strict=True):
        count = min(max(wave if isinstance(wave, int) else -(-devices * int(wave[:-1]) // 100), least), devices)
        if found and count <= found[-1].devices:
            found[-1] = PlannedWave(found[-1].devices, max(found[-1].dwell_s, float(dwell)))
        elif count > 0:
            found.append(PlannedWave(count, float(dwell)))
    return tuple(found)


def _percent(wave: str) -> int:
    digits = wave[:-1]
    if not (wave.endswith("%") and digits.isascii() and digits.isdigit() and len(digits) <= 3 and 1 <= int(digits) <= 100):
        raise ConfigError(f"wave {wave[:40]!r} is neither a device count nor a whole percentage from '1%' to '100%'")
    return int(digits)
