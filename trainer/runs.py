"""Run folders: one per training, `runs/<time>-<id>/run.json`, what was asked, what came out, how long it took. Dates live here only."""

import json
import os
import platform
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from edgefleet.digests import canonical_json
from edgefleet.errors import ConfigError
from edgefleet.files import write_durably

RUN_NAME: Final = "run.json"
MAX_RUN_BYTES: Final = 4_194_304


class Run:
    """A run that is going on. `record` is what run.json will hold; `finish` writes it."""

    def __init__(self, runs_dir: Path) -> None:
        started = datetime.now(UTC)
        self.id = f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        self.folder = runs_dir / self.id
        try:
            self.folder.mkdir(parents=True)
        except OSError as err:
            raise ConfigError(f"{runs_dir}: cannot make the run folder: {err.strerror}; name another with --runs-dir") from err
        self.seconds: dict[str, float] = {}
        environment = {"python": platform.python_version(), "platform": platform.platform(), "cores": os.cpu_count()}
        self.record: dict[str, Any] = {"format_version": 1, "id": self.id, "started_at": started.isoformat(), "environment": environment}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the seconds of one phase."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(time.perf_counter() - begin, 3)

    def finish(self, status: str, reason: str = "") -> None:
        """Write run.json; status is packaged | refused | failed."""
        self.record |= {"status": status, "reason": reason, "seconds": self.seconds}
        write_durably(self.folder / RUN_NAME, canonical_json(self.record))


def read_runs(runs_dir: Path) -> list[dict[str, Any]]:
    """Every finished run, oldest first; a damaged run.json appears with the status `unreadable` instead of hiding."""
    records = []
    for path in sorted(runs_dir.glob(f"*/{RUN_NAME}")):
        try:
            if path.stat().st_size > MAX_RUN_BYTES:
                raise ValueError(f"larger than {MAX_RUN_BYTES} bytes")
            record = json.loads(path.read_bytes())
            if not isinstance(record, dict):
                raise ValueError("no JSON object")
        except (OSError, ValueError, RecursionError) as err:
            record = {"id": path.parent.name, "status": "unreadable", "reason": str(err)}
        records.append(record)
    return records
