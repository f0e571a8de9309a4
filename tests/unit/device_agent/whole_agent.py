"""What the tests of the whole agent share: one device with its server and broker, and the agent as a process."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgefleet.messages import EventBody, Reported, decode
from tests.unit.device_agent.agent_world import PROJECT, BlobServer, Enrolled, Fleet, blob_server, enroll, mosquitto

COMMAND = [sys.executable, "-m", "edgefleet", "agent"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}


@dataclass
class Surrounded:
    """One enrolled device, its blob server, and the fleet server's side of its broker."""

    folder: Path
    blobs: BlobServer
    fleet: Fleet
    enrolled: Enrolled

    def reported(self) -> Reported | None:
        """The last reported state, None before the first."""
        return self.fleet.said(Reported, "reported")

    def state(self) -> str:
        """State of the update, "" before the first report."""
        reported = self.reported()
        return reported.projects[PROJECT].state if reported else ""

    def want(self, digest: str | None, **changes: Any) -> None:
        """Publish a desired state; `changes` as of `Enrolled.desired`."""
        self.fleet.publish("desired", self.enrolled.desired(digest, **changes))

    def events(self, name: str) -> list[EventBody]:
        """What the device has told under a name."""
        found = [decode(EventBody, record.body) for record in self.fleet.telemetry("event")]
        return [event for event in found if event.name == name]


@contextmanager
def surrounded(folder: Path) -> Iterator[Surrounded]:
    """A device in `folder` that was enrolled at servers which run meanwhile."""
    with mosquitto(folder / "broker") as (url, port, _), blob_server() as blobs, Fleet(port) as fleet:
        yield Surrounded(folder, blobs, fleet, enroll(folder / "device", blobs.url, url))
