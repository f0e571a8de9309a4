"""Files by sha256 in a folder: streamed to a temporary name, checked, renamed. A name that exists is complete and right."""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Final, Protocol

from edgefleet.errors import ArtifactError, InputError, StorageError
from edgefleet.files import make_folder, sync_folder
from edgefleet.identifiers import check_digest
from fleet_server.queries.errors import NotFoundError

_CHUNK_BYTES: Final = 1 << 18
_PART: Final = ".upload-"


class ByteStream(Protocol):
    """Anything with `read`."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, b"" at the end."""


class BlobStore:
    """Content-addressed folder; writing the same content twice is harmless."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self.max_bytes = max_bytes

    def path(self, sha256: str) -> Path:
        """Where the content of that digest lies, or would lie."""
        check_digest(sha256, "blob")
        return self._folder / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        """Whether the content has arrived."""
        return self.path(sha256).is_file()

    def existing(self, sha256: str) -> Path:
        """Path of content that has arrived.

        Raises:
            NotFoundError: It has not.
        """
        path = self.path(sha256)
        if not path.is_file():
            raise NotFoundError("blob", sha256)
        return path

    def put(self, sha256: str, stream: ByteStream, length: int) -> bool:
        """Store `length` bytes of a stream under their digest; False when they were there already.

        Raises:
            InputError: Longer than accepted, or the stream ended early.
            ArtifactError: The bytes have another sha256; nothing is kept.
            StorageError: The disk refused; nothing is kept.
        """
        path = self.path(sha256)
        if length > self.max_bytes:
            raise InputError(
                f"blob {sha256[:12]}: {length} bytes exceed the limit of {self.max_bytes}; make the model smaller or raise the limit"
            )
        if path.is_file():
            return False
        try:
            make_folder(path.parent)
            handle, name = tempfile.mkstemp(prefix=_PART, dir=path.parent)
            try:
                _copy_checked(handle, sha256, stream, length)
                Path(name).chmod(0o644)
                Path(name).replace(path)
                sync_folder(path.parent)
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(name).unlink()
                raise
        except OSError as err:
            raise StorageError(f"blob {sha256[:12]}: {err.strerror or err}; make room in {self._folder} and send it again") from err
        return True

    def remove_cut_off(self) -> int:
        """Remove what uploads left behind when the process was killed; only while no other process writes here. How many there were."""
        removed = 0
        for path in list(self._folder.glob(f"*/{_PART}*")):
            with contextlib.suppress(OSError):  # it takes room and harms nothing
                path.unlink()
                removed += 1
        return removed

    def read(self, sha256: str, limit: int) -> bytes:
        """Content of a small blob.

        Raises:
            NotFoundError: It has not arrived.
            ArtifactError: It is larger than `limit`.
        """
        with self.existing(sha256).open("rb") as stream:
            content = stream.read(limit + 1)
        if len(content) > limit:
            raise ArtifactError(f"blob {sha256[:12]}: larger than the {limit} bytes that may be read at once")
        return content


def _copy_checked(handle: int, sha256: str, stream: ByteStream, length: int) -> None:
    digest, left = hashlib.sha256(), length
    with os.fdopen(handle, "wb") as target:
        while left:
            chunk = stream.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise InputError(f"blob {sha256[:12]}: the upload ended {left} bytes early; send it again")
            digest.update(chunk)
            target.write(chunk)
            left -= len(chunk)
        target.flush()
        os.fsync(target.fileno())
    if digest.hexdigest() != sha256:
        raise ArtifactError(
            f"blob {sha256[:12]}: the bytes sent have sha256 {digest.hexdigest()[:12]}; send the file that the manifest lists"
        )
