"""The other side of a soak: an identity folder, a private Mosquitto, and a server that stores, acknowledges and adds up what arrives."""

import json
import os
import pwd
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from device_agent.update.disk import Disk
from device_agent.update.store import Store
from edgefleet.bundle import MANIFEST_NAME, Bundle
from edgefleet.desired import DesiredModel, DesiredPayload, TrialPolicy, sign_desired
from edgefleet.messages import Acked, Telemetry, WindowBody, decode, encode
from edgefleet.signing import SigningKey

DEVICE, FLEET, PROJECT = "soak-1", "soak", "benchmark"
LISTEN_S: Final = 30.0


class Server:
    """Stores each record once, by (boot, sequence), and acknowledges.

    Attributes:
        answered: Rows answered, in all windows.
        rejected: Rows refused, in all windows.
        doubles: Records that came again.
        bytes: Payload bytes received.
        kinds: Records stored, by kind.
    """

    def __init__(self) -> None:
        self._stored: dict[int, set[int]] = {}
        self._upto: dict[int, int] = {}
        self._lock = threading.Lock()
        self.answered = self.rejected = self.records = self.doubles = self.bytes = 0
        self.kinds: Counter[str] = Counter()

    def store(self, content: bytes) -> Acked:
        """Take one record; what is to be said back."""
        record = decode(Telemetry, content)
        with self._lock:
            self.bytes += len(content)
            mine = self._stored.setdefault(record.boot, set())
            upto = max(self._upto.get(record.boot, 0), record.oldest_seq - 1)
            if record.seq <= upto or record.seq in mine:
                self.doubles += 1
            else:
                self.records += 1
                self.kinds[record.kind] += 1
                mine.add(record.seq)
                if record.kind == "window":
                    body = decode(WindowBody, record.body)
                    self.answered += body.answered
                    self.rejected += sum(body.rejected.values())
            while upto + 1 in mine:
                upto += 1
                mine.remove(upto)  # a soak may run for days
            self._upto[record.boot] = upto
            return Acked(stored=[(record.boot, upto)])


@contextmanager
def connected(server: Server, port: int) -> Iterator[None]:
    """Let the server listen at a broker."""

    def on_message(client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        client.publish(f"ef/v1/d/{DEVICE}/acked", encode(server.store(bytes(message.payload))), qos=1, retain=True)

    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="soak-server")
    client.on_message = on_message
    client.on_connect = lambda client, *_: client.subscribe(f"ef/v1/d/{DEVICE}/t", 1)
    listens = threading.Event()
    client.on_subscribe = lambda *_: listens.set()
    client.reconnect_delay_set(1, 1)  # the broker may not listen yet
    client.connect_async("127.0.0.1", port)
    client.loop_start()
    # What is sent before would come again only after half a minute.
    if not listens.wait(LISTEN_S):
        raise SystemExit(f"no broker on port {port} within {LISTEN_S:g} s; is mosquitto installed?")
    try:
        yield
    finally:
        client.disconnect()
        client.loop_stop()


@contextmanager
def mosquitto(folder: Path, port: int) -> Iterator[None]:
    """A private broker on loopback."""
    program = "/usr/sbin/mosquitto" if os.access("/usr/sbin/mosquitto", os.X_OK) else "mosquitto"
    lines = [f"user {pwd.getpwuid(os.getuid()).pw_name}", "allow_anonymous true", "log_dest none", f"listener {port} 127.0.0.1", ""]
    (folder / "mosquitto.conf").write_text("\n".join(lines))
    child = subprocess.Popen([program, "-c", str(folder / "mosquitto.conf")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        child.terminate()
        child.wait(10)


def enroll(folder: Path, port: int) -> Path:
    """An identity folder as `edgefleet enroll` writes it."""
    folder.mkdir()
    SigningKey.load_or_create(folder / "device.key")
    identity = {
        "format_version": 1,
        "device_id": DEVICE,
        "fleet": FLEET,
        "project": PROJECT,
        "director_key": SigningKey.load_or_create(folder.parent / "director.key").public.hex,
        "server_url": "http://127.0.0.1:9",  # nothing is fetched: the model is installed by hand
        "token": "none",
        "broker_url": f"mqtt://127.0.0.1:{port}",
    }
    (folder / "identity.json").write_text(json.dumps(identity))
    return folder


def commit(folder: Path, bundle: Bundle, variant: str) -> None:
    """Let a bundle be what runs in an identity folder, as after an update: its slot, and the document by which the director wants it."""
    store = Store(folder, Disk())
    for name in bundle.manifest.variant_files(variant):
        _keep(store, bundle.manifest.files[name].sha256, bundle.locate(name))
    _keep(store, bundle.digest, bundle.locate(MANIFEST_NAME))
    store.write_slot(bundle.digest, bundle.manifest, variant)
    store.point("active", bundle.digest)
    model = DesiredModel(bundle_digest=bundle.digest, release="r", release_counter=1, rollout="o", nonce="n", trial=TrialPolicy())
    payload = DesiredPayload(format_version=1, fleet=FLEET, device=DEVICE, epoch=1, counter=1, issued_at=1, models={PROJECT: model})
    (folder / "desired").write_bytes(encode(sign_desired(payload, SigningKey.load_or_create(folder.parent / "director.key"))))


def _keep(store: Store, digest: str, file: Path) -> None:
    store.make_room_for(digest)
    store.blob_path(digest).write_bytes(file.read_bytes())
