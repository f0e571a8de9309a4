"""Windows of models that have gone or changed their share, until they are taken; and comparisons, each in a window of its model."""

import dataclasses

import msgspec

from device_agent.scorer import Scorer
from device_agent.telemetry.windows import Window
from edgefleet.shadow_counts import ShadowCounts


class ClosedWindows:
    """Keeps windows in the order they were closed. Not safe for threads."""

    def __init__(self) -> None:
        self._windows: list[Window] = []
        self._compared: dict[tuple[str, str], ShadowCounts] = {}

    def close(self, scorer: Scorer, share_1024: int | None = None, now_us: int | None = None) -> None:
        """Close a model's window; nothing is kept of one without rows.

        Args:
            scorer: The model.
            share_1024: Its share of the rows, None when it had all.
            now_us: As `Scorer.take_window` takes it.
        """
        window = scorer.take_window(now_us)
        if window is not None:
            self._windows.append(window if share_1024 is None else _with(window, share_1024=share_1024))

    def compared(self, counts: ShadowCounts | None) -> None:
        """Keep what a comparison counted; the same two models add up."""
        if counts is not None:
            pair = (counts.running, counts.shadow)
            known = self._compared.get(pair)
            self._compared[pair] = counts if known is None else known.merge(counts)

    def take(self) -> list[Window]:
        """Hand everything out; comparisons for which there is no window wait for one."""
        windows, self._windows = self._windows, []
        for pair, counts in list(self._compared.items()):
            free = [i for i, window in enumerate(windows) if window.body.shadow is None]
            own = [i for i in free if windows[i].body.bundle_digest == counts.running]
            if free:  # the counts name their models, so that another's window will do once the own one has gone
                at = (own or free)[-1]
                windows[at] = _with(windows[at], shadow=self._compared.pop(pair))
        return windows


def _with(window: Window, **changes: int | ShadowCounts) -> Window:
    return dataclasses.replace(window, body=msgspec.structs.replace(window.body, **changes))
