"""MQTT topics: prefix and version first, the device early, all of one device under one node, at most six levels."""

from typing import Final

from edgefleet.errors import InputError
from edgefleet.identifiers import check_id

PREFIX: Final = "ef/v1"
HALT: Final = f"{PREFIX}/halt"

DOWN: Final = ("desired", "cmd", "acked")
UP: Final = ("reported", "presence", "hb", "t", "labels", "log")
# Below it a device's MQTT door listens (`in`) and answers (`out`, or a caller's reply topic); none of it is the fleet server's.
SCORE: Final = "score"


def device_topic(device_id: str, leaf: str) -> str:
    """Topic of one device, for example `ef/v1/d/press-7/desired`."""
    if leaf not in DOWN + UP:
        raise InputError(f"topic leaf {leaf!r} is unknown: one of {', '.join(DOWN + UP)}")
    return f"{PREFIX}/d/{check_id(device_id, 'device id')}/{leaf}"


def score_topic(device_id: str, leaf: str) -> str:
    """A topic of the device's MQTT door, for example `ef/v1/d/press-7/score/in`."""
    return f"{PREFIX}/d/{check_id(device_id, 'device id')}/{SCORE}/{leaf}"


def all_devices(leaf: str) -> str:
    """Subscription filter for one leaf of every device."""
    if leaf not in DOWN + UP:
        raise InputError(f"topic leaf {leaf!r} is unknown: one of {', '.join(DOWN + UP)}")
    return f"{PREFIX}/d/+/{leaf}"


def marker_topic(fleet: str) -> str:
    """Topic on which a fleet's server hears itself: what comes behind a marker was sent after it. No device may write there."""
    return f"{PREFIX}/server/{check_id(fleet, 'fleet')}/marker"


def parse_device_topic(topic: str) -> tuple[str, str]:
    """Return (device id, leaf) of a device topic.

    Raises:
        InputError: The topic is not one of ours.
    """
    parts = topic.split("/")
    if len(parts) != 5 or parts[:3] != ["ef", "v1", "d"] or parts[4] not in DOWN + UP:
        raise InputError(f"topic {topic[:120]!r} is not a device topic: expected {PREFIX}/d/<id>/<leaf>")
    return check_id(parts[3], "device id"), parts[4]


def acl_patterns() -> list[str]:
    """Mosquitto ACL lines for every device; `%u` is the authenticated user, so devices come and go without touching the file."""
    lines = [f"pattern read {PREFIX}/d/%u/{leaf}" for leaf in DOWN]
    lines += [f"pattern write {PREFIX}/d/%u/{leaf}" for leaf in UP]
    return [*lines, f"pattern readwrite {PREFIX}/d/%u/{SCORE}/+", f"pattern read {HALT}"]
