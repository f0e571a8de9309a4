"""Zip archives of foreign origin (.skops, .keras, .npz), judged by their directory before anything in them is unpacked.

A zip names the unpacked size of each member, and Python's reader never gives more than that, so a bound on the sum of these sizes bounds
what unpacking takes. A member that lies about its size fails its checksum.
"""

import struct
from io import BytesIO
from typing import Final
from zipfile import BadZipFile, ZipFile

from edgefleet.errors import ArtifactError

MAX_UNPACKED_BYTES: Final = 2 * 1024**3
# A forest of 1,000 trees has about 5,000; the directory of an archive is read as a whole, some 500 bytes of memory a member.
MAX_MEMBERS: Final = 100_000
_ENTRY: Final = b"PK\x01\x02"


def check_archive(
    content: bytes, what: str, kind: str, *, max_unpacked_bytes: int = MAX_UNPACKED_BYTES, max_members: int = MAX_MEMBERS
) -> dict[str, int]:
    """Unpacked size in bytes of each member by name, when the archive is within its limits.

    Args:
        content: The archive.
        what: What errors call it.
        kind: What it should be, in words or as a suffix.
        max_unpacked_bytes: Largest sum of unpacked sizes.
        max_members: Most members.

    Raises:
        ArtifactError: Too many members, too large when unpacked, or no readable archive.
    """
    # Counted before the directory is parsed: each member has one such mark there.
    if (members := content.count(_ENTRY)) > max_members:
        raise ArtifactError(f"{what}: {members} members exceed the limit of {max_members}; it is no model that is opened here")
    try:
        with ZipFile(BytesIO(content)) as archive:
            entries = archive.infolist()
    except (BadZipFile, OSError, EOFError, ValueError, NotImplementedError, struct.error) as err:
        raise ArtifactError(f"{what}: {len(content)} bytes are no readable {kind} file: {str(err)[:200]}; copy or make it again") from err
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > max_unpacked_bytes:
        raise ArtifactError(
            f"{what}: unpacks to {unpacked} bytes from {len(content)}, which exceed the limit of {max_unpacked_bytes}; make it smaller"
        )
    return {entry.filename: entry.file_size for entry in entries}
