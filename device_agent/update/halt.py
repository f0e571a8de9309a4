"""Whether the fleet is halted, as far as this device knows: the newest signed document about it, kept on disk.

While it is halted the device begins no update, and ends a trial that is under way without counting it: no device changes the model that it
runs, except for a commit that stood in its journal already. What runs goes on scoring and telling. A halt is obeyed even if the disk cannot
keep it; a lift only once the disk has.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from device_agent.config import Identity
from device_agent.update.disk import Disk
from edgefleet.errors import ArtifactError, EdgefleetError
from edgefleet.halt import MAX_REASON_CHARS, HaltPayload, judge_halt, open_halt
from edgefleet.messages import MAX_MESSAGE_BYTES, Halt, decode
from edgefleet.signed import Acceptance

HALT_NAME: Final = "halt"


class FleetHalt:
    """The fleet halt as one device knows it; all methods but the attributes belong to the update's thread.

    Args:
        identity: Whose fleet, and whose signature counts.
        disk: Where all writing goes through.
        folder: The identity folder.
        tell: Called with (event name, sentence, "") for the operator.

    Attributes:
        halted: Nothing new begins.
        reason: Why, "" while nothing is halted.
        counter: Of the newest accepted document, 0 before the first.
        refused: Documents that were refused since the start: not signed, malformed, too large, or older than the one that is known.
    """

    def __init__(self, identity: Identity, disk: Disk, folder: Path, tell: Callable[[str, str, str], None]) -> None:
        self._identity, self._disk, self._path, self._tell = identity, disk, folder / HALT_NAME, tell
        self.halted, self.reason, self.counter, self.refused = False, "", 0, 0
        self._stored: tuple[int, int, bytes] | None = None
        self._pending: bytes | None = None
        self._problem = ""
        self._restore()

    def receive(self, message: bytes) -> None:
        """Remember a document for the next `take`; only the latest matters."""
        self._pending = message

    def facts(self) -> dict[str, Any]:
        """What `reported` says about it."""
        return {"halted": self.halted, "halt_counter": self.counter, "halts_refused": self.refused}

    def health(self) -> dict[str, Any]:
        """What health.json says about it."""
        return {"halt": self.reason, "halts_refused": self.refused}

    def refuse(self, why: str) -> None:
        """Count and tell a document that is not obeyed."""
        self.refused += 1
        self._tell("halt-refused", why, "")

    def take(self) -> bool:
        """Judge what has come; whether that changed anything.

        Raises:
            StorageError: A document is right and cannot be kept; a halt holds all the same, and is kept at the next try.
        """
        if self._problem:
            self._tell("halt-unusable", self._problem, "")
            self._problem = ""
        if self._pending is None:
            return False
        message = self._pending
        try:
            envelope = decode(Halt, message)
            payload = open_halt(envelope, self._identity.director_key, self._identity.fleet)
            acceptance = judge_halt(payload, envelope.payload, self._stored)
        except ArtifactError as err:
            self._pending = None
            self.refuse(str(err))
            return True
        if acceptance is Acceptance.NEW:
            self._obey(message, envelope.payload, payload)
        elif acceptance is Acceptance.STALE:
            self.refuse(f"an older fleet halt document came again ({payload.counter}); {self.counter} stays")
        self._pending = None
        return acceptance is not Acceptance.REPEATED

    def _obey(self, message: bytes, content: bytes, payload: HaltPayload) -> None:
        if payload.halted:
            self.halted, self.reason = True, _sentence(payload)
        self._disk.replace(self._path, message, mode=0o600)
        self._set(payload, content)
        if payload.halted:
            self._tell("halted", self.reason, "")
        else:
            self._tell("halt-lifted", f"the fleet halt was lifted by {payload.ordered_by or 'the director'}: {payload.reason}", "")

    def _set(self, payload: HaltPayload, content: bytes) -> None:
        self.halted, self.counter = payload.halted, payload.counter
        self.reason = _sentence(payload) if payload.halted else ""
        self._stored = payload.epoch, payload.counter, content

    def _restore(self) -> None:
        if not self._path.exists():
            return
        try:
            with self._path.open("rb") as stream:
                envelope = decode(Halt, stream.read(MAX_MESSAGE_BYTES + 1))
            self._set(open_halt(envelope, self._identity.director_key, self._identity.fleet), envelope.payload)
        except (OSError, EdgefleetError) as err:
            # Nobody can say whether it was a halt or a lift, so it is a halt until the broker tells the newest one again.
            self.halted, self.reason = True, "halted: the stored fleet halt cannot be read"
            self._problem = f"the stored fleet halt cannot be used, so nothing new begins until the next document: {err}"


def _sentence(payload: HaltPayload) -> str:
    return f"fleet halt by {payload.ordered_by or 'the director'}: {payload.reason or 'no reason given'}"[:MAX_REASON_CHARS]
