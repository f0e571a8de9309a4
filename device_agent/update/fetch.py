"""Blobs over HTTP: resumed by range, bounded by the size the manifest signs for, hashed as a whole before they count.

Who serves the bytes does not matter, a mirror or the server: a wrong answer costs time, never safety. Waits are full jitter,
so that a fleet does not come back in step.
"""

import http.client
import random
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from device_agent.update.disk import Disk
from device_agent.update.store import Store
from edgefleet.errors import ArtifactError, StorageError, TransportError, VerdictError
from edgefleet.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest

CHUNK_BYTES: Final = 65_536
TIMEOUT_S: Final = 20.0
MIN_FREE_BYTES: Final = 1_048_576
BACKOFF_BASE_S: Final = 1.0
BACKOFF_CAP_S: Final = 300.0
REFUSALS: Final = 5


class WrongBytesError(ArtifactError):
    """The server gave bytes of another hash, and did so again when the part was dropped and fetched anew."""


class NotServedError(VerdictError):
    """The server says for good that it does not give the blob (401, 403, 404, 410)."""


class FetchStopped(TransportError):  # it is no error of anybody: a newer wish came in
    """The fetch was given up because something newer is wanted; the part stays."""


def backoff_s(failures: int, rng: random.Random) -> float:
    """Wait before try `failures` + 1: uniform in [0, min(cap, base * 2^failures)]."""
    return rng.uniform(0.0, min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0 ** min(failures, 20)))


@dataclass(frozen=True)
class Fetcher:
    """Brings blobs of one server into the store.

    Attributes:
        store: Where they go.
        disk: Where all writing goes through.
        base_url: Server or mirror, without a trailing slash.
        token: Bearer token, "" for none.
        stopped: Asked between chunks; True ends the fetch with FetchStopped.
    """

    store: Store
    disk: Disk
    base_url: str
    token: str
    stopped: Callable[[], bool]

    def manifest(self, bundle_digest: str) -> Manifest:
        """Fetch and parse the manifest.

        Raises:
            WrongBytesError: Other bytes, twice.
            ArtifactError: The right bytes, but not a manifest that this agent understands.
            TransportError: Try again later.
            NotServedError: The server will not give it.
            StorageError: The disk refused.
        """
        self._blob(bundle_digest, None)
        return parse_manifest(self.store.manifest_bytes(bundle_digest))

    def variant(self, manifest: Manifest, variant: str) -> None:
        """Fetch the files that one variant needs, and no others; raises as `manifest` does."""
        entries = [manifest.files[name] for name in manifest.variant_files(variant)]
        missing = [entry for entry in entries if not self.store.has_blob(entry.sha256)]
        self._check_room(sum(entry.size_bytes for entry in missing))
        for entry in missing:
            self._blob(entry.sha256, entry.size_bytes)

    def _blob(self, digest: str, size_bytes: int | None) -> None:
        if self.store.has_blob(digest):
            return
        self.store.make_room_for(digest)
        for _ in range(2):
            self._download(digest, size_bytes)
            if self.store.adopt_part(digest):
                return
        raise WrongBytesError(f"{self.base_url}: blob {digest[:12]} came with another hash, twice; nothing was changed")

    def _download(self, digest: str, size_bytes: int | None) -> None:
        part = self.store.part_path(digest)
        have = part.stat().st_size if part.exists() else 0
        if size_bytes is not None and have == size_bytes and have > 0:
            return
        if have > (size_bytes if size_bytes is not None else MAX_MANIFEST_BYTES):
            self.disk.unlink(part)
            have = 0
        with self._open(digest, have) as answer:
            if have and answer.status != 206:
                self.disk.unlink(part)
                have = 0
            limit = size_bytes if size_bytes is not None else MAX_MANIFEST_BYTES
            self.disk.append_part(part, self._chunks(answer, limit - have))
        got = part.stat().st_size
        if size_bytes is not None and got < size_bytes:
            raise TransportError(f"{self.base_url}: blob {digest[:12]} ended after {got} of {size_bytes} bytes; it is resumed")

    def _open(self, digest: str, offset: int) -> http.client.HTTPResponse:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        url = f"{self.base_url}/api/v1/blobs/{digest}"
        try:
            return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)  # type: ignore[no-any-return]  # noqa: S310  # http or https, checked in config
        except urllib.error.HTTPError as err:
            err.close()
            if err.code == 416:
                # The part is longer than what the server has: it is not what we think it is.
                self.disk.unlink(self.store.part_path(digest))
                raise TransportError(f"{url}: the part here is longer than the blob there; it is fetched anew") from err
            if err.code in (401, 403, 404, 410):
                raise NotServedError(
                    f"{url}: answer {err.code} {err.reason}; was the release pushed, is the device still enrolled?"
                ) from err
            raise TransportError(f"{url}: answer {err.code} {err.reason}") from err
        except (OSError, http.client.HTTPException) as err:
            raise TransportError(f"{url}: {err}; is the server up?") from err

    def _chunks(self, answer: http.client.HTTPResponse, limit_bytes: int) -> Iterator[bytes]:
        left = limit_bytes
        while True:
            if self.stopped():
                raise FetchStopped("the fetch was given up for something newer")
            try:
                chunk = answer.read1(min(CHUNK_BYTES, left + 1))
            except (OSError, http.client.HTTPException) as err:
                raise TransportError(f"{self.base_url}: the connection broke: {err}; it is resumed") from err
            if not chunk:
                if answer.length:
                    raise TransportError(f"{self.base_url}: the answer ended {answer.length} bytes early; it is resumed")
                return
            # One byte too many is kept, so that the hash is wrong and the part goes; an endless answer costs no more than that.
            yield chunk[: left + 1]
            left -= len(chunk)
            if left < 0:
                return

    def _check_room(self, needed_bytes: int) -> None:
        free = shutil.disk_usage(self.store.folder).free
        if needed_bytes + MIN_FREE_BYTES > free:
            raise StorageError(
                f"{self.store.folder}: the bundle needs {needed_bytes} bytes and {MIN_FREE_BYTES} spare, {free} are free; "
                "make room, the agent goes on by itself"
            )
