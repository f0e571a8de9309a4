"""The doors of a soak that need more than a call: a client of the MQTT door, and a program that puts files into a watched folder."""

import itertools
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from device_agent.doors.batch.folder import WatchedFolder
from device_agent.doors.batch.planning import Wishes
from device_agent.scorer import Scorer

TOPIC_IN, TOPIC_OUT = "soak/rows", "soak/answers"
MESSAGE_ROWS: Final = 64
# The broker of a soak is asked politely: what a storm of messages does is another test's matter.
UNDER_WAY: Final = 16
FOLDER_ROWS: Final = 1000
LISTEN_S: Final = 60.0
UNREADABLE: Final = (b"nonsense", b"\xc1", b"[" * 5_000, b'{"rows": 5}', b"")


class MqttLoad:
    """Sends batches of rows and counts answers; every `bad_every`-th message is unreadable, and one row of each batch is bad.

    Attributes:
        rows: Rows offered; an unreadable message is one.
        unreadable: Messages that no row can be read of.
        sent: Messages sent, and `answered` those with an answer.
    """

    def __init__(self, port: int, x: Any, bad_every: int) -> None:
        batch = [[round(float(v), 3) for v in row] for row in x[:MESSAGE_ROWS]]
        batch[5] = batch[5][:3]
        self._good, self._bad_every = json.dumps(batch).encode(), bad_every
        self.rows = self.unreadable = self.sent = self.answered = 0
        self._free, self._listens = threading.Semaphore(UNDER_WAY), threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="soak-caller")
        self._client.on_connect = lambda client, *_: client.subscribe(TOPIC_OUT, 1)
        self._client.on_subscribe = lambda *_: self._listens.set()
        self._client.on_message = self._on_answer
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def run(self, ended: Callable[[], bool], offered: Callable[[int], None], connected: Callable[[], bool]) -> None:
        """Send until the end; `offered` is told of the rows of each message before it goes."""
        pause = threading.Event()
        if not self._listens.wait(LISTEN_S):
            raise SystemExit("the broker of the soak does not answer")
        while not connected() and not ended():
            pause.wait(0.05)
        for i in itertools.count():
            if ended():
                return
            if not self._free.acquire(timeout=1.0):
                continue
            bad = i % self._bad_every == 0
            self.rows += 1 if bad else MESSAGE_ROWS
            self.unreadable += bad
            self.sent += 1
            offered(1 if bad else MESSAGE_ROWS)
            self._client.publish(TOPIC_IN, UNREADABLE[i // self._bad_every % len(UNREADABLE)] if bad else self._good, qos=1)

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_answer(self, _client: Any, _userdata: Any, _message: Any) -> None:
        self.answered += 1
        self._free.release()


class FolderLoad:
    """Puts a file at a time into a folder and lets the watcher score it, as `edgefleet agent score --watch` does; removes both when done.

    Attributes:
        watched: The watcher, with its counts.
    """

    def __init__(self, folder: Path, bundle: Path, x: Any, bad_lines: tuple[str, ...], bad_every: int) -> None:
        self._inbox, self._outbox = folder / "inbox", folder / "outbox"
        self._inbox.mkdir()
        self._outbox.mkdir()
        self._scorer = Scorer.open(bundle)
        lines = [json.dumps([round(float(v), 3) for v in row]) for row in x[:FOLDER_ROWS]]
        for i in range(0, len(lines), bad_every):
            lines[i] = bad_lines[i // bad_every % len(bad_lines)]
        self.rows_per_file, self._content = len(lines), "\n".join(lines) + "\n"
        self.watched = WatchedFolder(self._inbox, self._scorer, Wishes(), self._outbox)

    def run(self, ended: Callable[[], bool], offered: Callable[[int], None]) -> None:
        """One file after the other until the end."""
        for i in itertools.count():
            if ended():
                return
            name = self._inbox / f"{i:08d}.ndjson"
            part = name.with_suffix(".partial")
            part.write_text(self._content)
            part.rename(name)
            offered(self.rows_per_file)
            self.watched.look(lambda: False)
            for path in (name, *self._outbox.iterdir()):
                path.unlink()

    def close(self) -> None:
        """Let go of the model."""
        self._scorer.close()
