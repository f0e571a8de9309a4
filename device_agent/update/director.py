"""Whom the device obeys: desired states that the director signed, in order, remembered before they are acted on.

The last accepted document lies in `desired` as it came. (epoch, counter) never goes back; two documents with one counter are an
equivocation, and refused.
"""

from pathlib import Path
from typing import Final

from device_agent.config import Identity
from device_agent.update.disk import Disk
from edgefleet.desired import Acceptance, DesiredModel, DesiredPayload, judge_counter, open_desired
from edgefleet.errors import EdgefleetError
from edgefleet.messages import MAX_MESSAGE_BYTES, Desired, decode

DESIRED_NAME: Final = "desired"


class Director:
    """The desired state of one device.

    Args:
        identity: Whose desired state, and whose signature counts.
        disk: Where all writing goes through.
        folder: The identity folder.

    Attributes:
        payload: The last accepted document, None before the first.
        problem: Why the stored document could not be used at the start, "" when it could.
    """

    def __init__(self, identity: Identity, disk: Disk, folder: Path) -> None:
        self._identity, self._disk, self._path = identity, disk, folder / DESIRED_NAME
        self.payload: DesiredPayload | None = None
        self.problem = ""
        self._content = b""
        self._restore()

    @property
    def position(self) -> tuple[int, int]:
        """(epoch, counter) of the accepted document, (0, 0) before the first."""
        return (self.payload.epoch, self.payload.counter) if self.payload else (0, 0)

    def wanted(self) -> DesiredModel | None:
        """What this device's project should run, None when the document names nothing."""
        return self.payload.models.get(self._identity.project) if self.payload else None

    def lifted(self) -> dict[str, int]:
        """Bundles that may be tried again though they failed here, with the counter under which a person said so."""
        return {} if self.payload is None else self.payload.lifted

    def release_of(self, bundle_digest: str) -> int | None:
        """Counter of the release that brings a bundle, None when the document names another."""
        named = self.payload.models.values() if self.payload is not None else ()
        return next((model.release_counter for model in named if model.bundle_digest == bundle_digest), None)

    def accept(self, message: bytes) -> Acceptance:
        """Verify a message, and remember it durably when it is new.

        Raises:
            ArtifactError: Malformed, not signed, for somebody else, or an equivocation; nothing was changed.
            StorageError: It is right but could not be remembered, so it must not be acted on; try again.
        """
        desired = decode(Desired, message)
        payload = open_desired(desired, self._identity.director_key, self._identity.fleet, self._identity.device_id)
        stored = (*self.position, self._content) if self.payload is not None else None
        acceptance = judge_counter(payload, desired.payload, stored)
        if acceptance is Acceptance.NEW:
            self._disk.replace(self._path, message, mode=0o600)
            self.payload, self._content = payload, desired.payload
        return acceptance

    def _restore(self) -> None:
        if not self._path.exists():
            return
        try:
            with self._path.open("rb") as stream:
                desired = decode(Desired, stream.read(MAX_MESSAGE_BYTES + 1))
            self.payload = open_desired(desired, self._identity.director_key, self._identity.fleet, self._identity.device_id)
            self._content = desired.payload
        except (OSError, EdgefleetError) as err:
            # Re-enrolled under another director, or a damaged disk: the next signed document replaces it.
            self.problem = f"the stored desired state cannot be used: {err}"
