"""One piece of work in a child process with limits; the trainer's imports use the same, so it lives in `edgefleet.isolate`."""

from edgefleet.isolate import DEFAULT_MEMORY_BYTES, MAX_REASON, ChildFailed, run_isolated

__all__ = ["DEFAULT_MEMORY_BYTES", "MAX_REASON", "ChildFailed", "run_isolated"]
