"""A whole agent with everything that it talks to: a real broker, blobs over HTTP, the fleet's side, and a client of its HTTP door."""

import json
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from device_agent.agent import Agent
from device_agent.config import AgentConfig
from device_agent.doors.http.settings import HttpSettings
from edgefleet.bundle import Bundle
from edgefleet.desired import DesiredModel, TrialPolicy
from edgefleet.messages import Heartbeat, Reported, WindowBody, decode, encode
from tests.unit.device_agent.agent_world import (
    PROJECT,
    QUICK,
    BlobServer,
    Fleet,
    blob_server,
    enroll,
    eventually,
    make_bundle,
    mosquitto,
    weights,
)
from tests.unit.device_agent.http_world import matrix


class World:
    """A device, its broker and its blobs; each can be taken away."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._broker, self._fleet_end = ExitStack(), ExitStack()
        url, port, _ = self._broker.enter_context(mosquitto(folder / "broker"))
        self.blobs: BlobServer = self._broker.enter_context(blob_server())
        self.fleet = self._fleet_end.enter_context(Fleet(port))
        self.enrolled = enroll(folder / "device", self.blobs.url, url)

        def listens() -> bool:
            self.fleet.publish("hb", encode(Heartbeat(boot=0, at=0, running={})), retain=False)
            return self.fleet.last("hb") is not None

        # What is sent before the server has subscribed would come again only after half a minute.
        eventually("the server listens", listens)
        self.agent = self.started()

    def started(self, **changes: Any) -> Agent:
        settings: dict[str, Any] = {"window_s": 0.3, "heartbeat_s": 0.3, "selftest_timeout_s": 60.0, "http": HttpSettings(port=0)} | changes
        agent = Agent(AgentConfig(dir=self.enrolled.folder, **settings))
        agent.start()
        return agent

    def restarted(self, **changes: Any) -> None:
        self.agent.close()
        self.agent = self.started(**changes)

    def unplugged(self) -> None:
        """The network is off: no broker, no server."""
        self._fleet_end.close()
        self._broker.close()
        eventually("the agent notices", lambda: not self.agent._link.connected)

    def bundle(self, seed: int) -> Bundle:
        made = make_bundle(self.folder / f"bundle-{seed}", weights(seed))
        self.blobs.add(made)
        return made

    def want(self, bundle: Bundle, release: int, trial: TrialPolicy = QUICK, **more: Any) -> None:
        model = DesiredModel(
            bundle_digest=bundle.digest, release="r", release_counter=release, rollout="o", nonce=f"n-{release}", trial=trial
        )
        self.fleet.publish("desired", self.enrolled.desired(bundle.digest, models={PROJECT: model}, **more))

    def state(self) -> tuple[str, str]:
        reported = self.fleet.said(Reported, "reported")
        return ("", "") if reported is None else (reported.projects[PROJECT].state, reported.projects[PROJECT].subject_digest)

    def wait_for(self, state: str, bundle: Bundle) -> None:
        def there() -> bool:
            if self.agent.models.in_service is not None:
                self.agent.score([0.0] * 5)
            return self.state() == (state, bundle.digest)

        eventually(state, there, 60.0)

    def windows(self) -> list[WindowBody]:
        return [decode(WindowBody, record.body) for record in self.fleet.telemetry("window")]

    def infer(self, x: Any, version: str = "") -> bytes:
        """The answer's bytes over the wire."""
        path = f"/v2/models/{PROJECT}{f'/versions/{version}' if version else ''}/infer"
        content = json.dumps({"id": "same", "inputs": [matrix(x)]}).encode()
        request = urllib.request.Request(f"{self.agent.http_url}{path}", content, {"Content-Type": "application/json"})  # noqa: S310  # loopback
        with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310  # the same
            return bytes(reply.read())

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.agent.http_url}{path}", timeout=30) as reply:  # noqa: S310  # the same
            return json.loads(reply.read())

    def close(self) -> None:
        self.agent.close()
        self._fleet_end.close()
        self._broker.close()
