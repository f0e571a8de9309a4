"""Events for the operator, few enough that nobody can flood the spool with them: a minute at most ten of a name, and each text once."""

import time
from typing import Final

EVENTS_PER_MINUTE: Final = 10
MAX_DETAIL_CHARS: Final = 2000


class EventLimit:
    """Remembers what was told in the last minute."""

    def __init__(self) -> None:
        self._told: dict[str, list[tuple[float, str]]] = {}

    def admits(self, name: str, detail: str) -> bool:
        """Whether this event may be told now; if so it counts as told."""
        now = time.monotonic()
        recent = [(at, text) for at, text in self._told.get(name, []) if now - at < 60.0]
        if len(recent) >= EVENTS_PER_MINUTE or any(text == detail for _, text in recent):
            return False
        self._told[name] = [*recent, (now, detail)]
        return True
