"""A selection in JSON: an object where it is exact labels only, its text otherwise.

The object is the older form and stays the one of what it can say, so that the same selection, however it was written, is the same plan.
"""

from collections.abc import Mapping
from typing import TypeAlias

from fleet_server.labels import MAX_LABELS, check_labels
from fleet_server.selection.reading import read_selection
from fleet_server.selection.terms import EVERYBODY, Every, Label, Selection, every, label
from fleet_server.selection.writing import written

Document: TypeAlias = Mapping[str, str] | str


def read_document(document: Document) -> Selection:
    """Read a selection of either form; an empty one is everybody.

    Raises:
        InputError: Labels that cannot be some, or a text that is no selection.
    """
    if isinstance(document, str):
        return read_selection(document) if document else EVERYBODY
    return every(label(key, [value]) for key, value in check_labels(document).items())


def document_of(selection: Selection) -> dict[str, str] | str:
    """The selection as JSON; equal selections have equal documents."""
    parts = selection.parts if isinstance(selection, Every) else (selection,)
    exact = {part.key: part.values[0] for part in parts if isinstance(part, Label) and len(part.values) == 1}
    # A label twice selects nobody; as an object it would select somebody. More than a device can have are no labels of one.
    return exact if len(exact) == len(parts) <= MAX_LABELS else written(selection)
