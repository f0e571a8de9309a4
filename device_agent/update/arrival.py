"""Brings one bundle here: manifest, choice of a variant, that variant's files, slot. How it ended is an event for the plan."""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

from device_agent.choose import choose_variant
from device_agent.config import AgentConfig, Identity
from device_agent.update.disk import Disk
from device_agent.update.fetch import REFUSALS, Fetcher, FetchStopped, NotServedError, WrongBytesError, backoff_s
from device_agent.update.plan import Event
from device_agent.update.store import Store
from edgefleet.errors import ArtifactError, EdgefleetError, StorageError, TransportError

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: an event, or None with the seconds after which to try again."""

    event: Event | None
    reason: str = ""
    wait_s: float = 0.0


class Arrival:
    """Attempts of one device; counts failures so that waits grow and a refusal by the server is final after a few.

    Args:
        identity: Whose token and project.
        config: Mirror, allowed runtimes and the model's budget of memory.
        store: Where the files go.
        disk: Where all writing goes through.
        stopped: True ends a download; what was got stays for a resume.
    """

    def __init__(self, identity: Identity, config: AgentConfig, store: Store, disk: Disk, stopped: Callable[[], bool]) -> None:
        self._project, self._store = identity.project, store
        self._runtimes, self._memory_bytes = config.runtimes, config.model_memory_bytes
        self._fetcher = Fetcher(store, disk, config.mirror or identity.server_url, identity.token, stopped)
        self._rng = random.Random()  # noqa: S311  # jitter, no secret
        self._failures = self._refusals = 0

    def forget_failures(self) -> None:
        """A new desired state begins anew."""
        self._failures = self._refusals = 0

    def attempt(self, digest: str) -> Outcome:
        """Fetch what is missing of a bundle and write its slot.

        Raises:
            StorageError: The disk refused; what is here stays.
        """
        try:
            self._bring(digest)
        except StorageError:
            raise
        except FetchStopped:
            return Outcome(None)
        except WrongBytesError as err:
            return Outcome(Event.WRONG_BYTES, str(err))
        except TransportError as err:
            return self._later(err)
        except NotServedError as err:
            self._refusals += 1
            if self._refusals < REFUSALS:
                return self._later(err)
            return Outcome(Event.REFUSED, f"{err} ({self._refusals} times)")
        except EdgefleetError as err:
            return Outcome(Event.REFUSED, str(err))
        self.forget_failures()
        return Outcome(Event.FETCHED)

    def _bring(self, digest: str) -> None:
        manifest = self._fetcher.manifest(digest)
        if manifest.project != self._project:
            raise ArtifactError(f"the bundle is for project {manifest.project}, this device runs {self._project}")
        variant, because = choose_variant(manifest, None, self._runtimes, memory_bytes=self._memory_bytes)
        LOG.info("bundle %s: %s", digest[:12], because)
        self._fetcher.variant(manifest, variant.name)
        self._store.write_slot(digest, manifest, variant.name)
        self._store.point("trial", digest)

    def _later(self, err: Exception) -> Outcome:
        self._failures += 1
        return Outcome(None, str(err), backoff_s(self._failures, self._rng))
