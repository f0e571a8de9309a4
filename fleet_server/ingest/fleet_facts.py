"""What a batch needs to know about devices and releases, read once per transaction."""

from dataclasses import dataclass

import sqlalchemy as sa

from edgefleet.manifest import Manifest, parse_manifest
from edgefleet.reference import cell_count
from fleet_server.store import devices
from fleet_server.store.tables import RELEASE


@dataclass(frozen=True)
class ReleaseFacts:
    """What a device's statements about a bundle are checked against; `features` are inputs, `counted` what the statistics count."""

    project: str
    features: int
    counted: int
    cells: int
    classes: int
    reference_digest: str
    model_digests: frozenset[str]


class FleetFacts:
    """Devices by id and releases by digest, as this transaction sees them."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._devices = devices.public_keys(connection)
        self._removed: frozenset[str] | None = None
        self._releases: dict[str, ReleaseFacts | None] = {}

    def knows(self, device_id: str) -> bool:
        """Whether the device is enrolled."""
        return device_id in self._devices

    def was_removed(self, device_id: str) -> bool:
        """Whether a device of that id was taken out of the fleet, and none was enrolled under it since."""
        if self._removed is None:
            self._removed = devices.removed_ids(self._connection)
        return device_id in self._removed

    def project(self, device_id: str) -> str:
        """Project of an enrolled device."""
        return self._devices[device_id][0]

    def public_key(self, device_id: str) -> str:
        """Public key of an enrolled device, in hex."""
        return self._devices[device_id][1]

    def release(self, bundle_digest: str) -> ReleaseFacts | None:
        """The release of that bundle, None when it was never pushed here."""
        if bundle_digest not in self._releases:
            content = self._connection.scalar(sa.select(RELEASE.c.manifest).where(RELEASE.c.bundle_digest == bundle_digest))
            self._releases[bundle_digest] = None if content is None else release_facts(parse_manifest(content))
        return self._releases[bundle_digest]


def release_facts(manifest: Manifest) -> ReleaseFacts:
    """The checkable part of a manifest."""
    return ReleaseFacts(
        project=manifest.project,
        features=len(manifest.inputs),
        counted=len(manifest.counted),
        cells=cell_count(manifest.inputs),
        classes=len(manifest.classes),
        reference_digest=manifest.reference_digest,
        model_digests=frozenset(variant.model_digest for variant in manifest.variants),
    )
