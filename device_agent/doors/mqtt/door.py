"""The door: messages wait in a bounded queue, one thread answers them in turn.

Back-pressure, in this order: the broker holds back QoS 1 beyond RECEIVE_MAXIMUM (where it obeys); the queue takes MAX_WAITING messages and
MAX_WAITING_BYTES; what comes then, or has waited longer than MAX_WAIT_S, is answered with status `shed` and counted.
"""

import contextlib
import dataclasses
import logging
import threading
import time
from collections import deque
from typing import Any, Final, Protocol

from device_agent.batching import RUNTIME_FAILED
from device_agent.doors.mqtt.connection import Arrival, DoorConnection
from device_agent.doors.mqtt.counts import Counting, Counts
from device_agent.doors.mqtt.reply import CONTENT_TYPES, Reply, encode, failure, of_batch, of_refusal, of_score
from device_agent.doors.mqtt.request import MAX_PAYLOAD_BYTES, Request, encoding_of, read_request
from device_agent.doors.mqtt.settings import MqttSettings, reply_problem
from device_agent.score import BatchScores, Score
from device_agent.scorer import Scorer
from edgefleet.errors import ArtifactError, ConfigError, InputError, ModelSwapped, RowRejected

LOG = logging.getLogger(__name__)

MAX_WAITING: Final = 256
MAX_WAITING_BYTES: Final = 4 * 1024 * 1024
MAX_WAIT_S: Final = 30.0
MAX_SWAPS: Final = 8
LOOK_S: Final = 1.0
JOIN_S: Final = 10.0
SHED: Final = "shed"


class Models(Protocol):
    """Who answers: `Answering`, or the agent, which also reports."""

    @property
    def in_service(self) -> Scorer | None:
        """The model whose answers count."""
        ...

    def score(self, row: Any, explain: bool = False, made_for: Scorer | None = None, key: str | int | None = None) -> Score:
        """As `Answering.score`."""
        ...

    def score_batch(self, rows: Any, made_for: Scorer | None = None, key: str | int | None = None) -> BatchScores:
        """As `Answering.score_batch`."""
        ...


class MqttDoor:
    """One door of one agent.

    Args:
        settings: Where to listen and answer.
        models: Who answers.

    Raises:
        ConfigError: The settings cannot be used.
    """

    def __init__(self, settings: MqttSettings, models: Models) -> None:
        self._settings, self._models = settings, models
        self._connection = DoorConnection(settings, self._arrived)
        self._counting = Counting()
        self._queue: deque[Arrival] = deque()
        self._waiting_bytes = 0
        self._there = threading.Condition()
        self._stopping = False
        self._worker = threading.Thread(target=self._work, name="mqtt-door", daemon=True)

    def start(self) -> None:
        """Begin to connect and to answer; returns at once."""
        self._connection.start()
        self._worker.start()

    @property
    def connected(self) -> bool:
        """Whether the broker is there."""
        return self._connection.connected

    @property
    def alive(self) -> bool:
        """Whether the thread that answers is."""
        return self._worker.is_alive()

    @property
    def counts(self) -> Counts:
        """What was counted since the start."""
        counts = self._counting.now()
        return dataclasses.replace(counts, unsent=counts.unsent + self._connection.refused)

    def close(self) -> None:
        """Stop listening; what waits is answered with `shed`."""
        with self._there:
            self._stopping = True
            self._there.notify_all()
        if self._worker.is_alive():
            self._worker.join(JOIN_S)
        while (arrival := self._next(0.0)) is not None:
            self._shed(arrival, "stopping", "the agent stops; ask again later")
        self._connection.close()

    def _arrived(self, arrival: Arrival) -> None:
        """In the network's thread: queue it, or say no."""
        size_bytes = len(arrival.payload)
        if size_bytes > MAX_PAYLOAD_BYTES:
            # Its answer names the size; the bytes need not wait for it.
            arrival = dataclasses.replace(arrival, payload=b"")
            value, limit = f"a message of {size_bytes} bytes", f"at most {MAX_PAYLOAD_BYTES} bytes; send fewer rows at once"
            self._reject(arrival, RowRejected(None, value, limit, "count"))
            return
        with self._there:
            room = len(self._queue) < MAX_WAITING and self._waiting_bytes + size_bytes <= MAX_WAITING_BYTES and not self._stopping
            if room:
                self._queue.append(dataclasses.replace(arrival, arrived_s=time.monotonic()))
                self._waiting_bytes += size_bytes
                self._there.notify()
        if not room:
            limit = f"{MAX_WAITING} messages or {MAX_WAITING_BYTES} bytes wait already"
            self._shed(arrival, "queue", f"{limit}; ask again later, or less often")

    def _next(self, timeout_s: float) -> Arrival | None:
        with self._there:
            if not self._queue and timeout_s:
                self._there.wait(timeout_s)
            if not self._queue:
                return None
            arrival = self._queue.popleft()
            self._waiting_bytes -= len(arrival.payload)
            return arrival

    def _work(self) -> None:
        looked_s = time.monotonic()
        while not self._stopping:
            self._connection.wait_for_room(LOOK_S)
            arrival = self._next(LOOK_S)
            if arrival is not None and not self._connection.comes_again(arrival):
                try:
                    self._handle(arrival)
                except Exception as err:  # a thread that died would be a door that says nothing
                    LOG.exception("MQTT door: going on after an error")
                    self._fail(arrival, "internal", f"the door failed: {type(err).__name__}")
            if time.monotonic() - looked_s > LOOK_S:
                looked_s = time.monotonic()
                with contextlib.suppress(OSError):
                    self._connection.look()

    def _handle(self, arrival: Arrival) -> None:
        waited_s = time.monotonic() - arrival.arrived_s
        if waited_s > MAX_WAIT_S:
            self._shed(arrival, "age", f"the message waited {waited_s:.0f} s, the limit is {MAX_WAIT_S:.0f} s; ask again")
            return
        if arrival.retained:
            self._reject(arrival, RowRejected(None, "a retained message", "messages that are not retained: they would come again", "type"))
            return
        for _ in range(MAX_SWAPS):
            scorer = self._models.in_service
            depth = 1 if scorer is None or scorer.bundle.manifest.window_rows == 1 else 2
            try:
                request = read_request(arrival.payload, encoding_of(arrival.payload, arrival.content_type), depth)
            except RowRejected as err:
                self._reject(arrival, err)
                return
            with contextlib.suppress(ModelSwapped):  # its classes are not those that the answer would name
                self._answer(arrival, request, scorer)
                return
        self._shed(arrival, "swapped", f"the model was swapped {MAX_SWAPS} times meanwhile; ask again")

    def _answer(self, arrival: Arrival, request: Request, scorer: Scorer | None) -> None:
        rows = len(request.rows) if request.batch else 1
        more: Reply = {} if request.identity is None else {"id": request.identity}
        names = list(scorer.bundle.manifest.classes) if scorer is not None and request.probabilities else None
        try:
            if request.batch:
                scores = self._models.score_batch(request.rows, made_for=scorer, key=request.key)
                reasons: dict[str, int] = {}
                for refusal in scores.rejected.values():
                    reasons[refusal.reason] = reasons.get(refusal.reason, 0) + 1
                refused = len(scores.rejected)
                sums = {"status": "ok", "digest": scores.digest, "offered": rows, "scored": rows - refused, "rejected": refused}
                reply = more | sums | {"answers": of_batch(scores, names)}
                self._counting.message(scored=rows - refused, rejected=reasons)
            else:
                score = self._models.score(request.rows, explain=request.explain, made_for=scorer, key=request.key)
                reply = more | of_score(score, names)
                self._counting.message(scored=1)
            self._reply(arrival, reply)
        except RowRejected as err:
            self._reject(arrival, err, more)
        except ConfigError as err:
            self._shed(arrival, "no-model", str(err), rows, more)
        except (ArtifactError, InputError) as err:
            self._fail(arrival, RUNTIME_FAILED, str(err), rows, more)

    def _reject(self, arrival: Arrival, err: RowRejected, more: Reply | None = None) -> None:
        self._counting.message(rejected={err.reason: 1})
        self._reply(arrival, (more or {}) | of_refusal(err))

    def _fail(self, arrival: Arrival, reason: str, error: str, rows: int = 1, more: Reply | None = None) -> None:
        self._counting.message(rejected={reason: rows})
        self._reply(arrival, (more or {}) | failure("rejected", reason, error, offered=rows, rejected=rows))

    def _shed(self, arrival: Arrival, reason: str, error: str, rows: int = 1, more: Reply | None = None) -> None:
        self._counting.message(shed=rows)
        self._reply(arrival, (more or {}) | failure(SHED, reason, error, offered=rows, shed=rows))

    def _reply(self, arrival: Arrival, reply: Reply) -> None:
        """Send the answer, and let go of the message once it is on its way."""
        topic = self._settings.topic_out
        if arrival.reply_topic is not None:
            problem = reply_problem(arrival.reply_topic, self._settings.topic_in, self._settings.device_id)
            if problem:
                reply = reply | {"warning": f"answered here, because the response topic {problem}"}
            else:
                topic = arrival.reply_topic
        encoding = encoding_of(arrival.payload, arrival.content_type)
        if not self._connection.publish(topic, encode(reply, encoding), CONTENT_TYPES[encoding], arrival.correlation):
            self._counting.unsent()
        # Also when it was not sent: the broker would hold back others for it. When the connection is gone, nothing is acknowledged.
        self._connection.acknowledge(arrival)
