"""How many records were dropped, on disk: noted before a segment goes, so that a kill in between counts nothing twice, and all once."""

import contextlib
from pathlib import Path
from typing import Annotated, Final

import msgspec

from device_agent.update.disk import Disk
from edgefleet.errors import StorageError

DROPPED_NAME: Final = "dropped"
MAX_NOTE_BYTES: Final = 100
_Count = Annotated[int, msgspec.Meta(ge=0)]


def note(disk: Disk, folder: Path, dropped: int, segment: int) -> None:
    """Write how many records are dropped once this segment is removed; a disk that is full must not keep the room from being made."""
    with contextlib.suppress(StorageError):
        disk.replace_lightly(folder / DROPPED_NAME, msgspec.json.encode((dropped, segment)))


def noted(folder: Path) -> tuple[int, int]:
    """(records dropped, segment to be removed if it is still there); zeros when none was dropped or a power cut took the note."""
    try:
        with (folder / DROPPED_NAME).open("rb") as stream:
            return msgspec.json.decode(stream.read(MAX_NOTE_BYTES), type=tuple[_Count, _Count])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return 0, 0
