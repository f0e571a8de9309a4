"""Labels of devices; what selects by them is a selection (`fleet_server.selection`)."""

from collections.abc import Mapping
from typing import Final

from edgefleet.errors import InputError
from edgefleet.identifiers import check_id

MAX_LABELS: Final = 32
MAX_VALUE: Final = 200


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels if keys are identifiers and values short printable texts.

    Raises:
        InputError: Too many, a key that is no identifier, or a value that is empty, too long or not printable.
    """
    if len(labels) > MAX_LABELS:
        raise InputError(f"{len(labels)} labels exceed the limit of {MAX_LABELS}")
    for key, value in labels.items():
        check_id(key, "label")
        if not value or len(value) > MAX_VALUE or not value.isprintable():
            raise InputError(f"label {key}={value[:80]!r} is not accepted: 1 to {MAX_VALUE} printable characters")
    return dict(labels)


def described(labels: Mapping[str, str]) -> str:
    """Labels in words, for example `line=2, site=north`; empty when there are none."""
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
