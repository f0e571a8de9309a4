"""One door for every row: the running model answers, and perhaps another model beside it.

A candidate on trial only listens (`shadow.py`): it scores the same rows off the hot path and touches nobody. A challenger answers a
share of the keys itself (`split.py`). A swap happens between two calls, never within one; no row is lost by it.
"""

import logging
from typing import TYPE_CHECKING

from device_agent.doors.ab import STEPS, check_share
from device_agent.doors.asking import Asking, Row
from device_agent.doors.shadow import Alone, Shadow
from device_agent.doors.split import Split
from device_agent.scorer import Scorer
from device_agent.telemetry.windows import Window
from edgefleet.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from device_agent.update.trial import Trial

__all__ = ["Answering", "Row"]

LOG = logging.getLogger(__name__)


class Answering(Asking):
    """The running model, perhaps a candidate or a challenger, and counters since the start of the agent; arguments as of `Asking`."""

    def install(self, scorer: Scorer) -> None:
        """Make a model the running one; the one before is closed after its window was taken. Ends a split.

        Raises:
            ArtifactError: The candidate that is to be installed does not come back from a row; nothing was changed.
        """
        with self._changing:
            promoted = scorer is self.candidate
            if not self._stop_shadow() and promoted:
                raise ArtifactError(f"model {scorer.digest[:12]} does not come back from a row that it was asked on trial")
            with self._lock:
                old, self.running = self.running, scorer
                split, self.split = self.split, None
                if promoted:
                    if old is not None:
                        scorer.take_window()  # its rows were answered, and counted, by the model before
                    self.candidate = self.trial = None
                elif self.candidate is not None and self.trial is not None:
                    self._shadow = Shadow(scorer, self.candidate, self.trial, self._shadow_fraction)
                for gone, share in ((old, None if split is None else STEPS - split.share_1024), (self.earlier, None)):
                    if gone is not None and gone is not scorer:
                        self._retire(gone, share)
                self.earlier = None
                if split is not None and split.challenger is scorer:
                    self._windows.close(scorer, split.share_1024)
                elif split is not None:
                    self._retire(split.challenger, split.share_1024)

    def begin_trial(self, scorer: Scorer, trial: "Trial") -> None:
        """Let a candidate be compared with the running model from the next row on; before the first model it answers itself."""
        with self._changing, self._lock:
            self.candidate, self.trial = scorer, trial
            self._shadow = Alone(trial) if self.running is None else Shadow(self.running, scorer, trial, self._shadow_fraction)

    def end_trial(self) -> None:
        """Let the candidate go."""
        with self._changing:
            stopped = self._stop_shadow()
            with self._lock:
                candidate, self.candidate, self.trial, self._shadow = self.candidate, None, None, None
            if candidate is not None and not stopped:
                LOG.error("model %s does not come back from a row; it is left alone", candidate.digest[:12])  # closing it would wait
            elif candidate is not None:
                with self._lock:
                    if self.running is None:  # else its rows were answered, and counted, by the running model
                        self._windows.close(candidate)
                    self._leaving.let_go(candidate)

    def settle(self, timeout_s: float) -> bool:
        """Wait until the candidate has seen every row that it will see; False when the time was too short."""
        return (shadow := self._shadow) is None or shadow.settle(timeout_s)

    def begin_split(self, challenger: Scorer, share_1024: int, salt: str) -> Split:
        """Let another model, owned by this object from now on, answer a share of the keys until `end_split` or `install`; see `Split`.

        Raises:
            ConfigError: No running model, a split under way, models of different forms, or a value out of range.
        """
        with self._changing, self._lock:
            if self.running is None or self.split is not None:
                raise ConfigError("no model is installed yet" if self.split is None else f"split {self.split.salt!r} is under way; end it")
            split = Split(self.running, challenger, share_1024, salt)
            self._windows.close(self.running)  # the windows of a split hold nothing from before
            self.split = split
            return split

    def set_share(self, share_1024: int) -> None:
        """Change the challenger's share; windows end here, so that each is of one share.

        Raises:
            ConfigError: No split is under way, or the share is out of range.
        """
        with self._changing, self._lock:
            if (split := self.split) is None:
                raise ConfigError("no split is under way")
            check_share(share_1024, split.salt)
            self._close_open(None)
            split.share_1024 = share_1024

    def end_split(self) -> None:
        """Let the running model answer every row again, and the challenger go."""
        with self._changing, self._lock:
            if (split := self.split) is not None:
                self._close_open(None)
                self.split = None
                self._retire(split.challenger, split.share_1024)

    def keep_earlier(self, scorer: Scorer) -> None:
        """Let one more model answer who asks for it, and the one before go; its rows count in windows of its own."""
        with self._changing, self._lock:
            if self.earlier is not None:
                self._retire(self.earlier)
            self.earlier = scorer

    def take_windows(self, now_us: int) -> list[Window]:
        """Close the telemetry windows of the models that answer, and hand out those of models that have gone."""
        with self._lock:
            self._close_open(now_us)
            self.rows_in_window = 0
            return self._windows.take()

    def close(self) -> None:
        """Let go of all models; windows can still be taken before."""
        with self._changing:
            stopped = self._stop_shadow()
            with self._lock:
                challenger = self.split.challenger if self.split is not None else None
                for scorer in filter(None, (self.candidate if stopped else None, challenger, self.earlier, self.running)):
                    self._leaving.let_go(scorer)

    def _close_open(self, now_us: int | None) -> None:
        split = self.split
        shares = [(self.in_service, None if split is None else STEPS - split.share_1024), (self.earlier, None)]
        shares += [] if split is None else [(split.challenger, split.share_1024)]
        for model, share in shares:
            if model is not None:
                self._windows.close(model, share, now_us)
        if isinstance(self._shadow, Shadow):
            self._windows.compared(self._shadow.comparison.take())

    def _retire(self, scorer: Scorer, share_1024: int | None = None) -> None:
        self._windows.close(scorer, share_1024)
        self._leaving.let_go(scorer)

    def _stop_shadow(self) -> bool:
        stopped = (shadow := self._shadow) is None or shadow.stop()
        with self._lock:
            if isinstance(shadow, Shadow):
                stopped = stopped and shadow.stop()  # again: rows may have come since, and are shed now that none can
                self._windows.compared(shadow.comparison.take())
            self._shadow = None if stopped else shadow
        return stopped
