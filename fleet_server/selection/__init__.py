"""Which devices are meant: an expression over labels, groups and device ids, as people write it.

    hardware = pi4 and site in (hall-1, hall-2) and not group(pilots)

Pure: it reads texts and evaluates them on one device. `terms.py` has the parts and what they mean, `reading.py` reads a text, `writing.py`
writes the one normal text of it, `documents.py` is its form in JSON. Which labels, groups and devices exist is not known here
(`fleet_server/selecting.py`); the same meaning in SQL is `fleet_server/store/selecting.py`.
"""

from fleet_server.selection.documents import Document, document_of, read_document
from fleet_server.selection.reading import MAX_CHARACTERS, read_selection
from fleet_server.selection.terms import (
    EVERYBODY,
    Devices,
    Either,
    Every,
    Group,
    Has,
    Label,
    Leaf,
    Not,
    Selection,
    expanded,
    groups_in,
    leaves,
    matches,
)
from fleet_server.selection.writing import logged, meant, written

__all__ = [
    "EVERYBODY", "MAX_CHARACTERS", "Devices", "Document", "Either", "Every", "Group", "Has", "Label", "Leaf", "Not", "Selection",
    "document_of", "expanded", "groups_in", "leaves", "logged", "matches", "meant", "read_document", "read_selection", "written",
]  # fmt: skip
