"""What the demo tells: steps with times and figures, for people on stderr and for machines as one JSON document on stdout."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from edgefleet.errors import EdgefleetError

T = TypeVar("T")
POLL_S = 0.2


class StepFailedError(EdgefleetError):
    """A step of the demo did not end as it must; what was seen stands in the message."""


@dataclass
class Step:
    """One step: `figures` are printed and become part of the JSON document."""

    name: str
    ok: bool = False
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The step for machines."""
        return {"name": self.name, "ok": self.ok, "seconds": round(self.seconds, 2), **self.figures}


class Story:
    """All steps so far, told as they happen."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.started = time.monotonic()

    def say(self, text: str = "") -> None:
        """A line for people; stdout belongs to the JSON document."""
        print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def step(self, name: str, sentence: str) -> Iterator[Step]:
        """Run one step: say what happens, time it, record whether it ended as it must."""
        step = Step(name)
        self.steps.append(step)
        self.say(f"\n[{time.monotonic() - self.started:5.1f} s] {sentence}")
        begun = time.monotonic()
        try:
            yield step
            step.ok = True
        except EdgefleetError as err:
            step.figures["error"] = str(err)
            raise
        finally:
            step.seconds = time.monotonic() - begun
            self.say(f"          {'done' if step.ok else 'FAILED'} in {step.seconds:.1f} s")

    def document(self, **head: Any) -> dict[str, Any]:
        """Everything as one document."""
        ok = bool(self.steps) and all(step.ok for step in self.steps) and head.get("error") is None
        seconds = round(time.monotonic() - self.started, 1)
        return {"ok": ok, "seconds": seconds, **head, "steps": [step.document() for step in self.steps]}


def require(condition: bool, what: str) -> None:
    """Fail the step unless `condition` holds."""
    if not condition:
        raise StepFailedError(what)


def wait_for(
    what: str,
    look: Callable[[], T | None],
    timeout_s: float,
    alive: Callable[[], None] | None = None,
    seen: Callable[[], str] | None = None,
) -> T:
    """Look until there is an answer.

    Args:
        what: What is waited for, for the message.
        look: Returns None while it is not there yet.
        timeout_s: Deadline.
        alive: Raises when waiting has become pointless, for example because a child process ended.
        seen: Says at the deadline what there is instead.

    Raises:
        StepFailedError: The deadline passed.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        if alive is not None:
            alive()
        answer = look()
        if answer is not None:
            return answer
        if time.monotonic() > deadline:
            instead = f"; there is: {seen()}" if seen is not None else ""
            raise StepFailedError(f"after {timeout_s:.0f} s still waiting for {what}{instead}")
        time.sleep(POLL_S)
