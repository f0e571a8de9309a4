"""What the agent watches about itself and its machine, from the operating system, without a further dependency.

Costs a few reads of /proc and /sys, about 0.1 ms a look. What cannot be known is None, never a guess.
"""

import math
import os
import platform
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgefleet.messages import DeviceLoad

THERMAL: Final = Path("/sys/class/thermal")
_RUNTIMES: Final = ("numpy", "onnxruntime", "ai-edge-litert", "tflite-runtime", "paho-mqtt")


@dataclass(frozen=True)
class Cost:
    """Resources of this process: resident bytes now, processor seconds since its start."""

    rss_bytes: int
    cpu_s: float


def own_cost() -> Cost:
    """Measure this process; costs one read of /proc (0 bytes where there is none: then the peak is given)."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        rss = pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        rss = usage.ru_maxrss * 1024
    return Cost(rss_bytes=rss, cpu_s=usage.ru_utime + usage.ru_stime)


def temperature_c(folder: Path = THERMAL) -> float | None:
    """The hottest thermal zone in degrees Celsius, None where the kernel shows none."""
    found = []
    for zone in sorted(folder.glob("thermal_zone*/temp"))[:64]:
        try:
            degrees = int(zone.read_text()) / 1000  # the kernel gives thousandths
        except (OSError, ValueError):
            continue  # a zone that is asleep answers with an error
        if -50.0 < degrees < 200.0:
            found.append(degrees)
    return max(found, default=None)


def disk_free_bytes(folder: Path) -> int | None:
    """Bytes that an unprivileged process may still write where `folder` lies, None when it cannot be asked."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def versions() -> dict[str, str]:
    """Versions of Python and of the runtimes that are installed."""
    import importlib.metadata  # a megabyte, which doors that only ask for `own_cost` do not need

    found = {"python": platform.python_version()}
    for name in _RUNTIMES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


class SelfWatch:
    """Load since the look before; `look` belongs to one thread, the rest to all.

    Args:
        folder: Identity folder, whose disk is watched.
        thermal: Where the kernel shows temperatures.

    Attributes:
        load: What the last look found.
    """

    def __init__(self, folder: Path, thermal: Path = THERMAL) -> None:
        self._folder, self._thermal = folder, thermal
        self._cost, self._at_s, self._versions = own_cost(), -math.inf, versions()
        self.load = DeviceLoad(cpu_permille=0, rss_bytes=self._cost.rss_bytes)

    def look(self, now_s: float, offset_ms: int | None, clock_jumps: int) -> DeviceLoad:
        """Measure.

        Args:
            now_s: Monotonic seconds; the processor share is that since the last look, 0 at the first.
            offset_ms: As `ClockWatch.offset_ms` gives it.
            clock_jumps: As it counts them.
        """
        cost, elapsed_s = own_cost(), now_s - self._at_s
        used_s = cost.cpu_s - self._cost.cpu_s
        self._cost, self._at_s = cost, now_s
        self.load = DeviceLoad(
            cpu_permille=round(1000 * used_s / elapsed_s) if 0 < elapsed_s < math.inf else 0,
            rss_bytes=cost.rss_bytes,
            disk_free_bytes=disk_free_bytes(self._folder),
            temperature_c=temperature_c(self._thermal),
            clock_offset_ms=offset_ms,
            clock_jumps=clock_jumps,
        )
        return self.load

    def facts(self) -> dict[str, Any]:
        """The last look in the names of the health file."""
        load = self.load
        return {
            "rss_bytes": load.rss_bytes,
            "cpu_s": self._cost.cpu_s,
            "cpu_percent": load.cpu_permille / 10,
            "disk_free_bytes": load.disk_free_bytes,
            "temperature_c": load.temperature_c,
            "clock_offset_ms": load.clock_offset_ms,
            "clock_jumps": load.clock_jumps,
            "versions": self._versions,
        }
