"""Where processes are killed hundreds of times."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")  # noqa: S108  # a folder of our own is made in it
ENOUGH_BYTES = 50_000_000


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where the machine has one: what kill -9 leaves is the same, and thousands of fsyncs wait for no disk."""
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < ENOUGH_BYTES:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="edgefleet-faults-", dir=MEMORY) as folder:
        yield Path(folder)
