"""A bundle on disk: a flat folder, or a device's slot that presents blobs as such a folder.

Opening checks the manifest; `read` checks size and sha256 of every file before anybody parses it, because one flipped bit in a graph
loads and answers wrongly more often than it fails.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgefleet.digests import sha256_hex
from edgefleet.errors import ArtifactError
from edgefleet.manifest import MAX_MANIFEST_BYTES, Manifest, Variant, parse_manifest

MANIFEST_NAME = "manifest.json"
MEASURED_NAME = "measured.json"
MAX_FILE_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        manifest: The parsed manifest.
        digest: Sha256 of manifest.json's bytes.
        locate: Path of a listed file; a folder and a slot differ only here.
    """

    manifest: Manifest
    digest: str
    locate: Callable[[str], Path]

    @classmethod
    def open(cls, path: Path | str) -> "Bundle":
        """Open a bundle folder.

        Raises:
            ArtifactError: Not a folder with a readable manifest of a known version.
        """
        folder = Path(path)
        content = _read_limited(folder / MANIFEST_NAME, MAX_MANIFEST_BYTES, MANIFEST_NAME)
        return cls(manifest=parse_manifest(content), digest=sha256_hex(content), locate=lambda name: folder / name)

    @classmethod
    def from_manifest(cls, content: bytes, locate: Callable[[str], Path]) -> "Bundle":
        """Open a bundle whose files lie elsewhere, for example content-addressed in a device's slot."""
        return cls(manifest=parse_manifest(content), digest=sha256_hex(content), locate=locate)

    def read(self, name: str) -> bytes:
        """Bytes of a listed file, verified.

        Raises:
            ArtifactError: Not listed, missing, of another size, or of another sha256.
        """
        entry = self.manifest.files.get(name)
        if entry is None:
            raise ArtifactError(f"{name!r} is not listed in the manifest of bundle {self.digest[:12]}")
        if entry.size_bytes > MAX_FILE_BYTES:
            raise ArtifactError(f"{name}: {entry.size_bytes} bytes exceed the limit of {MAX_FILE_BYTES}")
        content = _read_limited(self.locate(name), entry.size_bytes, name)
        if len(content) != entry.size_bytes:
            raise ArtifactError(f"{name}: {len(content)} bytes, the manifest says {entry.size_bytes}; fetch the bundle again")
        if (digest := sha256_hex(content)) != entry.sha256:
            raise ArtifactError(f"{name}: sha256 {digest[:12]}, the manifest says {entry.sha256[:12]}; fetch the bundle again")
        return content

    def verify(self) -> None:
        """Read and check every listed file."""
        for name in self.manifest.files:
            self.read(name)

    def variant(self, name: str) -> Variant:
        """The variant of that name, else ArtifactError."""
        return self.manifest.variant(name)


def _read_limited(path: Path, limit: int, name: str) -> bytes:
    """At most `limit` bytes; `name` is what the manifest calls the file, which in a device's slot lies under its digest."""
    try:
        with path.open("rb") as stream:
            content = stream.read(limit + 1)
    except OSError as err:
        raise ArtifactError(f"{path}: cannot be read: {err.strerror or err}; is this a bundle folder?") from err
    if len(content) > limit:
        raise ArtifactError(f"{name}: larger than the {limit} bytes it may have; fetch the bundle again")
    return content
