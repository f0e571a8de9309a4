"""Limits of a process that opens a graph for the first time."""

import contextlib
import os
import resource
from pathlib import Path

# The kernel ends the process with the highest value first when memory runs out.
_FIRST_TO_GO = "1000"


def limit_process(*, cpu_s: int, memory_bytes: int) -> None:
    """Limit this process for good: processor time, address space, private memory, no core dump, first to go when memory runs out.

    A limit that is lower already stays: nobody but root may raise it, and a service manager means it. Private memory is bounded by what the
    machine has, whatever `memory_bytes` allows: a graph that wants more fails here, and does not push the scoring process into swap.

    Args:
        cpu_s: Processor time in seconds, after which it ends by SIGXCPU.
        memory_bytes: Address space.
    """
    _lower(resource.RLIMIT_CPU, cpu_s, cpu_s + 1)
    _lower(resource.RLIMIT_AS, memory_bytes, memory_bytes)
    private = min(memory_bytes, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    _lower(resource.RLIMIT_DATA, private, private)
    _lower(resource.RLIMIT_CORE, 0, 0)
    with contextlib.suppress(OSError):  # no /proc, or a container that forbids it: the other limits hold
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)


def _lower(kind: int, soft: int, hard: int) -> None:
    present = resource.getrlimit(kind)[1]
    if present != resource.RLIM_INFINITY:
        soft, hard = min(soft, present), min(hard, present)
    resource.setrlimit(kind, (soft, hard))
