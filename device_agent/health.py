"""health.json: what the agent says about itself to the people and the container engine on the same machine.

Written every few seconds by rename, read by `edgefleet agent status`. It tells no secret and no row.
"""

import os
from pathlib import Path
from typing import Final

import msgspec

from device_agent.update.disk import Disk
from edgefleet.errors import ConfigError

HEALTH_NAME: Final = "health.json"
HEALTH_VERSION: Final = 1
WRITE_EVERY_S: Final = 2.0
STALE_AFTER_S: Final = 20.0
MAX_HEALTH_BYTES: Final = 65_536


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """State of a running agent.

    Attributes:
        at: Microseconds UTC.
        rows: Rows answered since the start, as are the other counters of rows.
        dropped: Telemetry records lost since the folder was made.
        cpu_percent: Of one core, over the last seconds.
        clock_offset_ms: How far this clock is behind the server's, None when the server never said.
        clock_jumps: How often this clock was set by more than a second.
        rows_not_kept: Rows whose statistics are in memory only: what kill -9 would cost now.
        rows_lost: Rows whose statistics the end of the agent before did cost, to within two seconds.
        explained: Rows explained and summed.
        explanations_skipped: Rows that were due but not explained, because the budget was used up.
        rows_sent: Rows that left the device as they came in; 0 unless operator and device both allow it.
        variant_because: One sentence why that variant runs, and not another of its bundle.
        halt: Why nothing new begins, "" while the fleet is not halted.
        halts_refused: Documents about a halt that were refused since the start.
        doors: Counts of each door that is open and is not HTTP, which tells its own, by name.
    """

    format_version: int = HEALTH_VERSION
    at: int
    pid: int
    boot: int
    device_id: str
    project: str
    connected: bool
    state: str
    reason: str
    running: str
    model: str
    variant: str
    subject: str
    attempt: int
    quarantined: list[str]
    rows: int
    rejected: int
    unanswered: int
    spooled: int
    dropped: int
    stopped_threads: list[str]
    storage_problem: str
    rss_bytes: int
    cpu_s: float
    cpu_percent: float = 0.0
    disk_free_bytes: int | None = None
    temperature_c: float | None = None
    clock_offset_ms: int | None = None
    clock_jumps: int = 0
    versions: dict[str, str] = {}
    rows_not_kept: int = 0
    rows_lost: int = 0
    explained: int = 0
    explanations_skipped: int = 0
    rows_sent: int = 0
    doors: dict[str, dict[str, int]] = {}
    variant_because: str = ""
    halt: str = ""
    halts_refused: int = 0


def write_health(folder: Path, health: Health, disk: Disk) -> None:
    """Replace health.json; a full disk is the caller's matter."""
    disk.replace_lightly(folder / HEALTH_NAME, msgspec.json.encode(health))


def read_health(folder: Path) -> Health:
    """Read health.json.

    Raises:
        ConfigError: There is none, or it is of another version.
    """
    path = folder / HEALTH_NAME
    try:
        with path.open("rb") as stream:
            health = msgspec.json.decode(stream.read(MAX_HEALTH_BYTES), type=Health)
    except OSError as err:
        raise ConfigError(
            f"{path}: {err.strerror}; is the agent running on this folder? start it with `edgefleet agent run --dir`"
        ) from err
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise ConfigError(f"{path}: {str(err)[:120]}; it was written by another version, start the agent again") from err
    if health.format_version != HEALTH_VERSION:
        raise ConfigError(f"{path}: version {health.format_version} is unknown, this program reads {HEALTH_VERSION}")
    return health


def problems(health: Health, now_us: int) -> list[str]:
    """What is wrong with the agent, in sentences; empty when it is well. Being offline or without a model is no illness."""
    found = []
    age_s = (now_us - health.at) / 1e6
    if age_s > STALE_AFTER_S:
        found.append(f"the last sign of life is {age_s:.0f} s old (limit {STALE_AFTER_S:.0f} s)")
    elif age_s < -STALE_AFTER_S:  # the clock was set back, and an agent that lives has written since
        found.append(f"the last sign of life is {-age_s:.0f} s in the future (limit {STALE_AFTER_S:.0f} s)")
    if not _alive(health.pid):
        found.append(f"process {health.pid} is gone")
    found += [f"its part {name!r} stopped" for name in health.stopped_threads]
    return found


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
