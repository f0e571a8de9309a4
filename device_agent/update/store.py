"""Blobs by content, slots as pointers: what is on the device and which of it runs.

    blobs/sha256/ab/<digest>   immutable, 0444; written as .part-<digest> beside it
    slots/<bundle digest>.json which variant, which blob is which file
    active, previous, trial    one bundle digest each, replaced by rename
    releases                   release counters of the bundles that ran here: what callers of the HTTP door know them by

`active` alone decides what runs. A blob counts only after its hash was checked and its name was made durable.
"""

from pathlib import Path
from typing import Final, Literal

import msgspec

from device_agent.update.disk import Disk
from edgefleet.bundle import MANIFEST_NAME, Bundle
from edgefleet.digests import canonical_json, sha256_file, sha256_hex
from edgefleet.errors import ArtifactError, EdgefleetError
from edgefleet.identifiers import check_digest
from edgefleet.manifest import MAX_MANIFEST_BYTES, Manifest, Variant

SLOT_VERSION: Final = 1
MAX_SLOT_BYTES: Final = 65_536
Pointer = Literal["active", "previous", "trial"]


class Slot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One runnable bundle: a variant and its files by content; the manifest is the blob named by `bundle_digest`."""

    format_version: int
    bundle_digest: str
    variant: str
    files: dict[str, str]


class Store:
    """Blobs, slots and pointers of one device.

    Args:
        folder: The identity folder.
        disk: Where all writing goes through.
    """

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.folder, self._disk = folder, disk
        self._known_releases: dict[str, int] | None = None

    def blob_path(self, digest: str) -> Path:
        """Where the blob of that sha256 lies or would lie."""
        return self.folder / "blobs" / "sha256" / check_digest(digest)[:2] / digest

    def part_path(self, digest: str) -> Path:
        """Where its bytes are gathered before they are checked."""
        return self.blob_path(digest).with_name(f".part-{digest}")

    def has_blob(self, digest: str) -> bool:
        """Whether the blob is here and its bytes have that hash."""
        path = self.blob_path(digest)
        try:
            return sha256_file(path) == digest
        except OSError:
            return False

    def adopt_part(self, digest: str) -> bool:
        """Turn a complete part into the blob; returns False, and drops the part, when its hash is another."""
        part, blob = self.part_path(digest), self.blob_path(digest)
        self._disk.fsync(part)
        if sha256_file(part) != digest:
            self._disk.unlink(part)
            return False
        self._disk.seal(part)
        self._disk.rename(part, blob)
        self._disk.fsync_dir(blob.parent)
        return True

    def make_room_for(self, digest: str) -> None:
        """Make the blob's folder."""
        self._disk.make_folder(self.blob_path(digest).parent)

    def drop_blob(self, digest: str) -> None:
        """Remove a damaged blob so that it is fetched again."""
        self._disk.unlink(self.blob_path(digest))

    def write_slot(self, bundle_digest: str, manifest: Manifest, variant: str) -> None:
        """Record a fetched bundle."""
        files = {name: manifest.files[name].sha256 for name in manifest.variant_files(variant)}
        slot = Slot(format_version=SLOT_VERSION, bundle_digest=bundle_digest, variant=variant, files=files)
        self._disk.make_folder(self.folder / "slots")
        self._disk.replace(self._slot_path(bundle_digest), canonical_json(msgspec.to_builtins(slot)))

    def slot(self, bundle_digest: str) -> Slot:
        """Read a slot.

        Raises:
            ArtifactError: Missing, damaged, or of another version.
        """
        path = self._slot_path(bundle_digest)
        try:
            with path.open("rb") as stream:
                content = stream.read(MAX_SLOT_BYTES)
            slot = msgspec.json.decode(content, type=Slot)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as err:
            raise ArtifactError(f"{path}: no readable slot: {str(err)[:120]}") from err
        if slot.format_version != SLOT_VERSION or slot.bundle_digest != bundle_digest:
            raise ArtifactError(f"{path}: slot of version {slot.format_version} for {slot.bundle_digest[:12]}, expected {SLOT_VERSION}")
        return slot

    def manifest_bytes(self, bundle_digest: str) -> bytes:
        """The manifest's bytes, checked against the bundle digest."""
        path = self.blob_path(bundle_digest)
        try:
            with path.open("rb") as stream:
                content = stream.read(MAX_MANIFEST_BYTES + 1)
        except OSError as err:
            raise ArtifactError(f"{path}: {err.strerror}; the manifest is not here") from err
        if sha256_hex(content) != bundle_digest:
            raise ArtifactError(f"{path}: the manifest's bytes are not those of bundle {bundle_digest[:12]}")
        return content

    def open_slot(self, bundle_digest: str) -> tuple[Bundle, Variant]:
        """A bundle over the slot's blobs, with every file of the slot verified.

        Raises:
            ArtifactError: Something is missing or has other bytes.
        """
        slot = self.slot(bundle_digest)
        content = self.manifest_bytes(bundle_digest)

        def locate(name: str) -> Path:
            return self.blob_path(bundle_digest if name == MANIFEST_NAME else slot.files[name])

        bundle = Bundle.from_manifest(content, locate)
        variant = bundle.variant(slot.variant)
        for name in bundle.manifest.variant_files(slot.variant):
            if slot.files.get(name) != bundle.manifest.files[name].sha256:
                raise ArtifactError(f"slot {bundle_digest[:12]}: {name} is not the file that the manifest lists")
            bundle.read(name)
        return bundle, variant

    def is_complete(self, bundle_digest: str) -> bool:
        """Whether the slot is there and every file of it is right."""
        try:
            self.open_slot(bundle_digest)
        except EdgefleetError:
            return False
        return True

    def pointer(self, name: Pointer) -> str:
        """The bundle digest a pointer names, "" when there is none or it is damaged."""
        try:
            with (self.folder / name).open("rb") as stream:
                return check_digest(stream.read(65).decode("ascii").strip())
        except (OSError, UnicodeDecodeError, EdgefleetError):
            return ""

    def point(self, name: Pointer, bundle_digest: str) -> None:
        """Make a pointer name a bundle, durably; the rename is the commit."""
        self._disk.replace(self.folder / name, check_digest(bundle_digest).encode())

    def clear(self, name: Pointer) -> None:
        """Remove a pointer, durably."""
        if (self.folder / name).exists():
            self._disk.unlink(self.folder / name)
            self._disk.fsync_dir(self.folder)

    def commit(self, bundle_digest: str) -> None:
        """Make a bundle the running one; safe to repeat after a cut at any point."""
        old = self.pointer("active")
        if old != bundle_digest:
            if old:
                self.point("previous", old)
            self.point("active", bundle_digest)
        self.clear("trial")

    def note_release(self, bundle_digest: str, counter: int | None) -> None:
        """Remember which release a bundle is, and forget bundles that are gone; None, when nobody says it, changes nothing."""
        known, here = self._releases(), (self.pointer("active"), self.pointer("previous"))
        if counter is not None and known.get(bundle_digest) != counter:
            kept = {digest: other for digest, other in known.items() if digest in here} | {bundle_digest: counter}
            self._disk.replace(self.folder / "releases", canonical_json(kept))
            self._known_releases = kept

    def release_of(self, bundle_digest: str) -> int | None:
        """Counter of the release that a bundle came with, None when it is not remembered."""
        return self._releases().get(bundle_digest)

    def _releases(self) -> dict[str, int]:
        if self._known_releases is None:
            try:
                with (self.folder / "releases").open("rb") as stream:
                    self._known_releases = msgspec.json.decode(stream.read(MAX_SLOT_BYTES), type=dict[str, int])
            except (OSError, msgspec.DecodeError, UnicodeDecodeError):
                self._known_releases = {}  # a number for callers, no part of what runs
        return self._known_releases

    def sweep(self) -> int:
        """Remove slots, blobs and parts that neither `active` nor `previous` needs; returns how many files went.

        Call it only when no update is under way. When a slot that must stay cannot be read, nothing is removed.
        """
        keep = {digest for digest in (self.pointer("active"), self.pointer("previous")) if digest}
        needed = set(keep)
        for digest in keep:
            try:
                needed |= set(self.slot(digest).files.values())
            except ArtifactError:
                return 0
        stale = [path for path in (self.folder / "slots").glob("*") if path.stem not in keep]
        stale += [path for path in (self.folder / "blobs" / "sha256").glob("*/*") if path.name not in needed]
        for path in stale:
            self._disk.unlink(path)
        return len(stale)

    def _slot_path(self, bundle_digest: str) -> Path:
        return self.folder / "slots" / f"{check_digest(bundle_digest)}.json"
