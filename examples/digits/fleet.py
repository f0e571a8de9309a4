"""The demo's fleet on one machine: a broker, a server, N agents, each a real process with a folder of its own."""

import json
import secrets
from pathlib import Path
from typing import Any, Final

from edgefleet.client import FleetClient
from edgefleet.files import write_durably
from edgefleet.ports import free_port
from examples.digits.children import Child
from examples.digits.sensors import Sensors
from examples.digits.story import Story, wait_for
from fleet_server.broker import SERVER_USER, Broker, open_broker

PROJECT: Final = "digits"
HERE: Final = Path(__file__).resolve().parent
READY_TIMEOUT_S: Final = 60.0
WINDOW_S: Final = 1
HEARTBEAT_S: Final = 1
POLL_S: Final = 0.5
RUNTIMES: Final = ("onnxruntime", "litert")


class Fleet:
    """Everything that runs beside the demo; `close` ends it all."""

    def __init__(self, folder: Path, devices: int, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.device_ids = [f"camera-{number:02d}" for number in range(1, devices + 1)]
        self.server: Child | None = None
        self.agents: dict[str, Child] = {}
        self._sensors = Sensors({device_id: self.device_folder(device_id) / "sensor.ndjson" for device_id in self.device_ids}, seed)
        self._broker: Broker | None = None
        self._password_file = folder / "server-mqtt-password"
        self._client: FleetClient | None = None

    def device_folder(self, device_id: str) -> Path:
        """Where one agent keeps its state."""
        return self.folder / "devices" / device_id

    @property
    def is_open(self) -> bool:
        """Whether the server answers, so that there is a page to look at."""
        return self._client is not None

    @property
    def client(self) -> FleetClient:
        """The API of the running server."""
        assert self._client is not None  # noqa: S101  # `open` comes first
        return self._client

    @property
    def broker(self) -> Broker:
        """The running broker."""
        assert self._broker is not None  # noqa: S101  # `open` comes first
        return self._broker

    def open_broker(self, choice: str) -> None:
        """Find or start the broker: quick, and the one thing that a machine may lack, so it comes first.

        Raises:
            MissingPartError: There is none; the message is the install line.
            TransportError: The one named does not answer.
        """
        password = secrets.token_urlsafe(24)
        write_durably(self._password_file, password.encode(), mode=0o600)
        self._broker = open_broker(choice, self.folder / "broker", password)

    def open(self) -> dict[str, Any]:
        """Start server, agents and cameras; return what a person wants to know about them."""
        self._start_server()
        for number, device_id in enumerate(self.device_ids):
            self._enroll(number, device_id)
        self._sensors.start()
        for number, device_id in enumerate(self.device_ids):
            self._start_agent(device_id, RUNTIMES[number % 2])
        return {"broker": self.broker.kind, "page": self.client.url, "devices": len(self.device_ids)}

    def check(self) -> None:
        """Raise when a process that should run has ended."""
        for child in [self.server, *self.agents.values()]:
            if child is not None:
                child.check()

    def see(self, device_id: str, situation: str) -> None:
        """Put a camera into a situation."""
        self._sensors.set_situation(device_id, situation)

    def close(self) -> None:
        """End cameras, agents, server and broker, in this order."""
        self._sensors.stop()
        for agent in self.agents.values():
            agent.ask_to_stop()
        for agent in self.agents.values():
            agent.stop()
        if self.server is not None:
            self.server.stop()
        if self._broker is not None:
            self._broker.stop()

    def _start_server(self) -> None:
        data = self.folder / "server"
        # A port of our choice, so that a restarted server is found where it was.
        arguments = ["serve", "--data", str(data), "--port", str(free_port()), "--broker", self.broker.url]
        arguments += ["--anonymous-viewer", "--drift-policy", str(HERE / "drift.toml"), "--poll-seconds", str(POLL_S)]
        if self.broker.kind != "given":
            arguments += ["--broker-user", SERVER_USER, "--broker-password-file", str(self._password_file)]
        if self.broker.passwords is not None:
            arguments += ["--mosquitto-passwords", str(self.broker.passwords), "--mosquitto-pid-file", str(self.broker.pid_file)]
        self.server = Child("the fleet server", self.folder / "logs" / "server.log", arguments)
        self.server.start()
        document = wait_for("the fleet server", lambda: _read_json(data / "server.json"), READY_TIMEOUT_S, self.server.check)
        self._client = FleetClient(str(document["url"]), (data / "admin.token").read_text().strip())

    def _enroll(self, number: int, device_id: str) -> None:
        site = "north" if number < len(self.device_ids) / 2 else "south"
        self.client.enroll_into(self.device_folder(device_id), device_id, {"site": site, "hardware": RUNTIMES[number % 2]}, project=PROJECT)

    def _start_agent(self, device_id: str, runtime: str) -> None:
        folder = self.device_folder(device_id)
        arguments = ["agent", "run", "--dir", str(folder), "--runtime", runtime, "--sensor", str(folder / "sensor.ndjson")]
        arguments += ["--window-seconds", str(WINDOW_S), "--heartbeat-seconds", str(HEARTBEAT_S), "--explain-every", "400"]
        agent = Child(f"agent {device_id}", self.folder / "logs" / f"{device_id}.log", arguments)
        agent.start()
        self.agents[device_id] = agent


def tell(story: Story, figures: dict[str, Any]) -> None:
    """Say which broker runs and where the page is."""
    kinds = {
        "given": "the broker you named",
        "mosquitto": "a private Mosquitto",
        "iotcore": "iotcore, a broker in a wheel (no access control)",
    }
    story.say(f"          broker: {kinds[figures['broker']]}; {figures['devices']} agents, half ONNX Runtime, half LiteRT")
    story.say(f"          operators' page: {figures['page']}")


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
