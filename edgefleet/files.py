"""Files that are either the old or the new content, whatever happens in between."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES})


def sync_folder(folder: Path) -> None:
    """Make renames and new names in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents where they are missing; their names survive a power cut when this returns.

    Raises:
        OSError: The disk refused.
    """
    missing = [above for above in (folder, *folder.parents) if not above.is_dir()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        for made in missing:
            sync_folder(made.parent)


def write_durably(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write temp file, fsync, rename, fsync folder. Readers see the old bytes or the new ones, never a part.

    Raises:
        OSError: The disk refused; the old file is untouched and no temporary file is left.
    """
    with _written_beside(path, content, mode) as beside:
        beside.replace(path)
    sync_folder(path.parent)


def create_durably(path: Path, content: bytes, mode: int = 0o644) -> bool:
    """Write a file unless there is one: of several that do so at once, one wins, and all find its bytes there afterwards.

    On a file system without hard links (FAT) the last one wins instead: read what is there, not what you wrote.

    Returns:
        Whether these bytes were written; False when there was a file.

    Raises:
        OSError: The disk refused; no temporary file is left.
    """
    with _written_beside(path, content, mode) as beside:
        try:
            os.link(beside, path)
        except FileExistsError:
            return False
        except OSError as err:
            if err.errno not in _NO_LINKS:
                raise
            beside.replace(path)
    sync_folder(path.parent)
    return True


@contextlib.contextmanager
def _written_beside(path: Path, content: bytes, mode: int) -> Iterator[Path]:
    """A temporary file in the same folder whose bytes are on the disk; it is gone after the block."""
    make_folder(path.parent)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    beside = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        beside.chmod(mode)
        yield beside
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
