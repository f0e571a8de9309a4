"""Which devices a question on the devices' screen selects, and in which order they stand: worst first.

A question is words that all must occur in the device's id, labels, state or release, for example `site=hall-2 trial`.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from fleet_server.page.states import LEGEND, WORST_FIRST, device_shape, device_word
from fleet_server.read_models import DeviceRow, Progress

PAGE_ROWS: Final = 100
MAX_QUESTION: Final = 200


@dataclass(frozen=True)
class Selection:
    """What a question selects.

    Attributes:
        rows: At most PAGE_ROWS devices of the page asked for.
        matching: Devices that match in all.
        total: Devices of the fleet.
        counts: By state, over the devices that match the words (before the state is chosen).
        page: Number of this page, from 1; `pages` is the last.
    """

    rows: list[DeviceRow]
    matching: int
    total: int
    counts: dict[Progress, int]
    question: str
    state: str
    page: int
    pages: int


def select(devices: list[DeviceRow], question: str, state: str, page: int) -> Selection:
    """Devices that match all words and the state, worst first."""
    question = question[:MAX_QUESTION].strip()
    words = question.casefold().split()
    matching = [device for device in devices if all(word in _haystack(device) for word in words)]
    counts = Counter(device_shape(device) for device in matching)
    if state in LEGEND:
        matching = [device for device in matching if device_shape(device) == state]
    matching.sort(key=lambda device: (WORST_FIRST.index(device_shape(device)), not device.drifting, device.device_id))
    pages = max(1, -(-len(matching) // PAGE_ROWS))
    page = min(max(page, 1), pages)
    return Selection(
        rows=matching[(page - 1) * PAGE_ROWS : page * PAGE_ROWS],
        matching=len(matching),
        total=len(devices),
        counts={shape: counts[shape] for shape in LEGEND},
        question=question,
        state=state if state in LEGEND else "",
        page=page,
        pages=pages,
    )


def _haystack(device: DeviceRow) -> str:
    labels = " ".join(f"{key}={value}" for key, value in device.labels.items())
    drifting = "drifting" if device.drifting else ""
    quarantined = "quarantined" if device.quarantined else ""
    parts = (device.device_id, labels, device_word(device), device.running_release, device.desired_release, drifting, quarantined)
    return " ".join(parts).casefold()
