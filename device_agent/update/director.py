"""Whom the device obeys: desired states that the director signed, in order, remembered before they are acted on.

The last accepted document lies in `desired` as it came. (epoch, counter) never goes back; two documents with one counter are an
equivocation, and refused. The document that raised the release floor last lies in `floor`: a server that was restored from an old copy
forgets its floor, a device does not. Both count only under the director's signature, so that another director's floor is none.
"""

from pathlib import Path
from typing import Final

from device_agent.config import Identity
from device_agent.update.disk import Disk
from edgefleet.desired import Acceptance, DesiredModel, DesiredPayload, judge_counter, open_desired
from edgefleet.errors import EdgefleetError
from edgefleet.messages import MAX_MESSAGE_BYTES, Desired, decode
from edgefleet.unknown_fields import unknown_fields

DESIRED_NAME: Final = "desired"
FLOOR_NAME: Final = "floor"


class Director:
    """The desired state of one device.

    Args:
        identity: Whose desired state, and whose signature counts.
        disk: Where all writing goes through.
        folder: The identity folder.

    Attributes:
        payload: The last accepted document, None before the first.
        floor: Least counter of a release that this device takes; 0: nobody raised it.
        ignored: Fields of the accepted document that this agent does not know and was allowed to ignore.
        problem: Why a stored document could not be used at the start, "" when it could.
    """

    def __init__(self, identity: Identity, disk: Disk, folder: Path) -> None:
        self._identity, self._disk = identity, disk
        self._path, self._floor_path = folder / DESIRED_NAME, folder / FLOOR_NAME
        self.payload: DesiredPayload | None = None
        self.floor = 0
        self.ignored: list[str] = []
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

    def floors(self) -> dict[str, int]:
        """The floor as it is told to the server."""
        return {self._identity.project: self.floor} if self.floor else {}

    def below_floor(self) -> str:
        """Why this device does not take what is wanted, "" when its release is not below the floor."""
        wanted = self.wanted()
        if wanted is None or wanted.release_counter >= self.floor:
            return ""
        has = f"release {wanted.release} has counter {wanted.release_counter}, the release floor of this device is {self.floor}"
        return f"{has}; the server must ask for a release at or above it"

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
            if (told := self._floor_in(payload)) > self.floor:
                # First: after a power cut between the two the floor holds, and the document comes again.
                self._disk.replace(self._floor_path, message, mode=0o600)
                self.floor = told
            self._disk.replace(self._path, message, mode=0o600)
            self.payload, self._content = payload, desired.payload
            self.ignored = unknown_fields(desired.payload, DesiredPayload)
        return acceptance

    def _restore(self) -> None:
        for path, what in ((self._floor_path, "release floor"), (self._path, "desired state")):
            if not path.exists():
                continue
            try:
                with path.open("rb") as stream:
                    desired = decode(Desired, stream.read(MAX_MESSAGE_BYTES + 1))
                payload = open_desired(desired, self._identity.director_key, self._identity.fleet, self._identity.device_id)
            except (OSError, EdgefleetError) as err:
                # Re-enrolled under another director, or a damaged disk: the next signed document replaces it.
                self.problem = "; ".join(filter(None, (self.problem, f"the stored {what} cannot be used: {err}")))
                continue
            self.floor = max(self.floor, self._floor_in(payload))
            if path == self._path:
                self.payload, self._content = payload, desired.payload

    def _floor_in(self, payload: DesiredPayload) -> int:
        return payload.floors.get(self._identity.project, 0)
