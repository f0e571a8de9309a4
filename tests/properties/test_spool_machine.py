"""The spool against a server, under any order of records, losses, doubles, restarts, cuts: each record once at the server, or counted."""

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from device_agent.telemetry.spool import WINDOW_RECORDS, Spool
from device_agent.update.disk import Disk
from edgefleet.messages import Acked, Telemetry, decode

LIMIT_BYTES = 12_000


class Cut(BaseException):
    """The process ends here."""


class SpoolMachine(RuleBasedStateMachine):
    """One device that restarts and is cut off, one server that knows records by (boot, seq)."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.boot, self.cut_in = 0, -1
        self.put: dict[tuple[int, int], bytes] = {}
        self.server: dict[tuple[int, int], bytes] = {}
        self.oldest: dict[int, int] = {}
        self.most_dropped = 0
        self.restart()

    def before(self, _name: str, _path: Path) -> None:
        """Ends the process at the operation that was chosen."""
        if self.cut_in == 0:
            self.cut_in = -1
            raise Cut
        self.cut_in -= self.cut_in > 0

    @rule()
    def restart(self) -> None:
        self.boot += 1
        self.spool = Spool(Path(self.folder.name), self.boot, LIMIT_BYTES, Disk(self.before))

    @rule(size=st.integers(1, 3000), cut_in=st.integers(-1, 4))
    def record(self, size: int, cut_in: int) -> None:
        body = len(self.put).to_bytes(4, "big") + bytes(size)
        self.cut_in = cut_in
        try:
            seq = self.spool.put("event", "tiny", "", 1, 2, body)
            self.put[(self.boot, seq)] = body
        except Cut:
            # Not vouched for, but it may be there: the number it would have had.
            self.put.setdefault((self.boot, self.spool.last_seq + 1), body)
            self.unsure = (self.boot, self.spool.last_seq + 1)
            self.cut_in = -1
            self.restart()
            kept = {key for key in self.put if self.spool.holds(lambda s, key=key: (s.boot, s.seq) == key)}  # type: ignore[misc]
            if self.unsure not in kept:
                del self.put[self.unsure]
        self.cut_in = -1

    @rule(arrive=st.lists(st.booleans(), min_size=WINDOW_RECORDS, max_size=WINDOW_RECORDS), double=st.booleans())
    def send(self, arrive: list[bool], double: bool) -> None:
        messages = self.spool.to_send()
        assert len(messages) + self.spool.outstanding <= WINDOW_RECORDS
        for (key, content), arrives in zip(messages, arrive, strict=False):
            self.spool.mark_sent(key)
            for _ in range(1 + double if arrives else 0):
                message = decode(Telemetry, content)
                assert (message.boot, message.seq) == key
                assert self.server.setdefault(key, message.body) == message.body == self.put[key]
                self.oldest[message.boot] = max(self.oldest.get(message.boot, 1), message.oldest_seq)

    @rule()
    def acknowledge(self) -> None:
        stored = []
        for boot, oldest in self.oldest.items():
            upto = oldest - 1
            while (boot, upto + 1) in self.server:
                upto += 1
            stored.append((boot, upto))
        self.spool.acknowledge(Acked(stored=stored[-4:]))

    @rule()
    def reconnect(self) -> None:
        self.spool.resend()

    @invariant()
    def nothing_is_lost_that_was_not_counted(self) -> None:
        spool = self.spool
        waiting = {key for key in self.put if key in spool._entries}
        lost = [key for key in self.put if key not in self.server and key not in waiting]
        assert len(lost) <= spool.dropped
        assert spool.dropped <= len(self.put)
        assert spool.size_bytes <= LIMIT_BYTES
        assert sum(path.stat().st_size for path in Path(self.folder.name).glob("*.seg")) <= LIMIT_BYTES + 3100

    def teardown(self) -> None:
        self.folder.cleanup()


SpoolMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestSpoolMachine = SpoolMachine.TestCase
