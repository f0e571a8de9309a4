"""What is in service stands in MLflow under the alias `champion`: a thread of its own, because MLflow may be slow or away.

Level-triggered: the release in service (`store.champions.in_service`) is compared with what was registered last, at each completed
rollout and every so often, and what differs is registered. So nothing is lost by a crash, by an MLflow that was away, or by a second
promotion meanwhile; a version is made once and found again by its digest, going back only moves the alias. An alias that somebody moved
in MLflow by hand is left alone until the next promotion.
"""

import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from edgefleet.errors import EdgefleetError
from edgefleet.manifest import parse_manifest
from edgefleet.registry import CHAMPION, register
from fleet_server import audit
from fleet_server.releases.blobs import BlobStore
from fleet_server.services import Services
from fleet_server.store import champions, changes
from fleet_server.store.champions import Registered
from fleet_server.store.tables import RELEASE

LOG = logging.getLogger(__name__)

ACTOR: Final = "mlflow"
AGAIN: Final = "it is tried again by itself"
MANIFEST_NAME: Final = "manifest.json"
LOOK_S: Final = 60.0
FIRST_PAUSE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 600.0
MAX_TROUBLE: Final = 1_000
_FOLDER_PREFIX: Final = "mlflow-"

# Folder of a bundle, registered name -> version there.
Register = Callable[[Path, str], str]


class Registrar:
    """Runs until stopped; no trouble ends it, and none reaches another thread."""

    def __init__(self, services: Services, url: str, register_at: Register | None = None, first_pause_s: float = FIRST_PAUSE_S) -> None:
        """Make it, without a thread yet.

        Args:
            services: The server's parts.
            url: The MLflow server.
            register_at: What registers a folder there; None = MLflow's client.
            first_pause_s: Seconds before the first retry; each further pause is twice as long, up to LONGEST_PAUSE_S.
        """
        self._services, self._url = services, url
        self._register_at = register_at or (lambda folder, name: register(folder, name, url, CHAMPION, remedy=AGAIN))
        self._first_pause_s = first_pause_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)

    def start(self) -> None:
        """Start the thread; what a killed server left half-way is removed and begun again."""
        for left in self._services.config.data_dir.glob(f"{_FOLDER_PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """End the thread; one that waits for MLflow is not waited for, its work is done again at the next start."""
        self._stopping.set()
        self._services.completed.set()
        self._thread.join(timeout_s)

    def register_due(self) -> bool:
        """Register every release that is in service and not registered; whether nothing is left to do."""
        with self._services.db.read() as connection:
            wanted, known = champions.in_service(connection), champions.registered(connection)
        clear = True
        for project, release_id in sorted(wanted.items()):
            if self._stopping.is_set():
                return clear
            before = known.get(project, Registered(project))
            there = (before.release_id, before.url, before.name) == (release_id, self._url, self._name(project))
            if not there:
                clear &= self._register(before, release_id)
            elif before.trouble:
                self._end_trouble(project)
        return clear

    def _run(self) -> None:
        pause_s = self._first_pause_s
        while not self._stopping.is_set():
            # Cleared before looking: a completion meanwhile is looked at again.
            self._services.completed.clear()
            try:
                clear = self.register_due()
            except Exception:  # the database may be busy or full; a registrar that died of it would never register again
                LOG.exception("mlflow: the look for what is in service failed, it is tried again")
                clear = False
            self._services.completed.wait(LOOK_S if clear else pause_s)
            pause_s = self._first_pause_s if clear else min(2 * pause_s, LONGEST_PAUSE_S)

    def _register(self, before: Registered, release_id: str) -> bool:
        project, name = before.project, self._name(before.project)
        try:
            shown, version = self._send(release_id, name)
        except EdgefleetError as err:
            self._trouble(before, release_id, str(err))
            return False
        except Exception as err:  # a client that fails in a way of its own must not stop the other projects
            LOG.exception("mlflow: release %s could not be registered", release_id)
            self._trouble(before, release_id, f"{release_id} is not registered: {type(err).__name__}: {str(err)[:200]}; {AGAIN}")
            return False
        at = self._services.now_us()
        with self._services.db.write() as connection:
            champions.note_registered(connection, Registered(project, release_id, self._url, name, version, at))
            detail = f"registered {project} {shown} in MLflow as {name} version {version}, alias {CHAMPION}"
            audit.record(connection, at, actor=ACTOR, action="register", subject=("release", release_id), detail=detail)
            changes.touch(connection, at, "releases", "overview")
        return True

    def _send(self, release_id: str, name: str) -> tuple[str, str]:
        """Put the bundle together and register it; the release's version and the one in MLflow."""
        with self._services.db.read() as connection:
            row = connection.execute(sa.select(RELEASE.c.version, RELEASE.c.manifest).where(RELEASE.c.release_id == release_id)).one()
        with tempfile.TemporaryDirectory(prefix=_FOLDER_PREFIX, dir=self._services.config.data_dir) as above:
            folder = Path(above) / release_id
            materialise(row.manifest, self._services.blobs, folder)
            return row.version, self._register_at(folder, name)

    def _trouble(self, before: Registered, release_id: str, sentence: str) -> None:
        """Keep the sentence; into the log of actions only when it is another one than at the last try."""
        at = self._services.now_us()
        said = sentence[:MAX_TROUBLE]
        with self._services.db.write() as connection:
            champions.note_trouble(connection, before.project, release_id, said, at)
            if (before.waiting_release_id, before.trouble) != (release_id, said):
                audit.record(connection, at, actor=ACTOR, action="register-failed", subject=("release", release_id), detail=said)
            changes.touch(connection, at, "releases", "overview")

    def _end_trouble(self, project: str) -> None:
        with self._services.db.write() as connection:
            champions.note_trouble(connection, project, None, "", None)
            changes.touch(connection, self._services.now_us(), "releases", "overview")

    def _name(self, project: str) -> str:
        prefix = self._services.config.mlflow_prefix
        return f"{prefix}-{project}" if prefix else project


def materialise(manifest: bytes, blobs: BlobStore, folder: Path) -> None:
    """A bundle's folder as it was pushed, from its manifest and the blobs; links where the file system has them.

    Raises:
        ArtifactError: The manifest is not valid.
        NotFoundError: A file is not there any more.
    """
    folder.mkdir(parents=True)
    for name, entry in parse_manifest(manifest).files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        source = blobs.existing(entry.sha256)
        try:
            os.link(source, target)
        except OSError:  # not every file system knows links
            shutil.copyfile(source, target)
    (folder / MANIFEST_NAME).write_bytes(manifest)
