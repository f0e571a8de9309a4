"""What the agent itself costs: memory and processor time, from the operating system, without a further dependency."""

import os
import resource
from dataclasses import dataclass
from pathlib import Path


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
