"""The device's signature under what it runs: made at each start, after each change of the model or of the desired state, and once a day."""

import time
from typing import Final

import msgspec

from device_agent.config import Identity
from device_agent.doors.answering import Answering
from device_agent.update.director import Director
from edgefleet.messages import AttestationBody, attestation_payload

RETRY_S: Final = 5.0


class Attester:
    """Decides when to attest, and signs.

    Args:
        identity: Whose key signs.
        models: What runs.
        director: Which desired state is answered; only a running model that it asks for is attested.
        every_s: The same is attested again after this.
    """

    def __init__(self, identity: Identity, models: Answering, director: Director, every_s: float) -> None:
        self._identity, self._models, self._director, self._every_s = identity, models, director, every_s
        self._attested: tuple[int, int, str] | None = None
        self._next_s = 0.0

    def due(self, now_s: float) -> AttestationBody | None:
        """A signed attestation when one is due at this monotonic time, else None. Call `done` when it was stored."""
        running, wanted = self._models.running, self._director.wanted()
        if running is None or wanted is None or wanted.bundle_digest != running.bundle.digest:
            return None
        subject = (*self._director.position, running.digest)
        if now_s < self._next_s and subject == self._attested:
            return None
        self._attested, self._next_s = subject, now_s + RETRY_S
        bare = AttestationBody(
            device=self._identity.device_id,
            epoch=subject[0],
            counter=subject[1],
            bundle_digest=running.bundle.digest,
            model_digest=running.digest,
            nonce=wanted.nonce,
            floors=self._director.floors(),
        )
        return msgspec.structs.replace(bare, signature=self._identity.key.sign(attestation_payload(bare)))

    def done(self) -> None:
        """The last one is in the spool: the next is due in a day, or when something changes."""
        self._next_s = time.monotonic() + self._every_s
