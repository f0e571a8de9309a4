"""The model before the running one, for callers who ask for its version: opened when the first of them comes, from what lies on the disk.

It takes the memory of one more model from then on until another one is installed. Nobody on trial is compared with it, and it has no share
in a split; its rows count in windows of its own.
"""

import threading
from collections.abc import Callable
from typing import Any, Protocol

from device_agent.doors.answering import Answering
from device_agent.score import BatchScores, Score
from device_agent.scorer import Scorer


class Asked(Protocol):
    """Who takes rows for a model by name: the agent, which also reports."""

    def score(self, row: Any, explain: bool = False, made_for: Scorer | None = None) -> Score:
        """As `Answering.score`."""
        ...

    def score_batch(self, rows: Any, made_for: Scorer | None = None) -> BatchScores:
        """As `Answering.score_batch`."""
        ...


class EarlierModel:
    """Answers rows with the model before.

    Args:
        asked: Takes the rows.
        models: Keeps the model once it is open.
        digest: Says its bundle digest, "" when there is none.
        opened: Opens the bundle of that digest.
        version: Says what callers know it by, "" when nobody knows.
    """

    def __init__(
        self, asked: Asked, models: Answering, digest: Callable[[], str], opened: Callable[[str], Scorer], version: Callable[[str], str]
    ) -> None:
        self._asked, self._models, self._digest, self._opened, self._version = asked, models, digest, opened, version
        self._opening = threading.Lock()

    @property
    def version(self) -> str:
        """What callers know it by, "" when there is none."""
        digest = self._digest()
        return self._version(digest) if digest else ""

    @property
    def in_service(self) -> Scorer | None:
        """The model, opened now when it is not open yet; None when there is none.

        Raises:
            EdgefleetError: It cannot be opened.
        """
        wanted = self._digest()
        if not wanted:
            return None
        with self._opening:
            earlier = self._models.earlier
            if earlier is None or earlier.bundle.digest != wanted:
                earlier = self._opened(wanted)
                self._models.keep_earlier(earlier)
            return earlier

    def score(self, row: Any, explain: bool = False, made_for: Scorer | None = None) -> Score:
        """As `Answering.score`, by this model."""
        return self._asked.score(row, explain, made_for=made_for or self.in_service)

    def score_batch(self, rows: Any, made_for: Scorer | None = None) -> BatchScores:
        """As `Answering.score_batch`, by this model."""
        return self._asked.score_batch(rows, made_for or self.in_service)
