"""One message as it came, and what a batch of them turned out to hold."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Incoming:
    """A message from the broker.

    Attributes:
        retained: Replayed by the broker at subscription: true, but no sign of life now.
        mid: The broker's number, for the acknowledgement.
        session: Number of our connection that it came on; an acknowledgement belongs to the same one.
        again: Sent on an earlier connection already, nobody knows when: true, but no sign of life now.
        sent_after: Microseconds UTC, the earliest moment at which it may have been sent; None: now.
    """

    topic: str
    payload: bytes
    retained: bool
    qos: int
    mid: int
    session: int
    again: bool = False
    sent_after: int | None = None

    @property
    def is_sign_of_life(self) -> bool:
        """Whether its sender lived after `sent_after`."""
        return not (self.retained or self.again)


@dataclass
class Effects:
    """What a batch changed, for those who act after the commit.

    Attributes:
        acked: Devices whose acknowledged sequences may have moved.
        dirty: (device, project) whose rollouts deserve a look.
        topics: What live pages should ask for again.
        seen: Device -> microseconds of its newest sign of life.
        online: The same of devices that the broker said to be there.
        aside: Messages that could not be used.
    """

    acked: set[str] = field(default_factory=set)
    dirty: set[tuple[str, str]] = field(default_factory=set)
    topics: set[str] = field(default_factory=set)
    seen: dict[str, int] = field(default_factory=dict)
    online: dict[str, int] = field(default_factory=dict)
    aside: int = 0
