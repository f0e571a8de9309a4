"""A feature's cells with their names and shares: reference against recent rows."""

from edgefleet.reference import BELOW, FIRST_BIN, MAX_CATEGORY_CELLS
from edgefleet.statistics import InputStatistics
from fleet_server.read_drift import Histogram
from fleet_server.store.references import ReferenceCells


def draw(cells: ReferenceCells, recent: InputStatistics, feature: int) -> Histogram:
    """The histogram of one feature; shares are of all rows, missing ones included, so that both sides add up to 1."""
    reference, current = cells.counts[feature], recent.counts[feature].tolist()
    shown = _shown(cells, feature, len(reference))
    reference_total, current_total = max(sum(reference), 1), max(sum(current), 1)
    return Histogram(
        feature=cells.names[feature],
        cells=[name for _, name in shown],
        reference=[reference[cell] / reference_total for cell, _ in shown],
        current=[current[cell] / current_total for cell, _ in shown],
        n=recent.rows,
    )


def _shown(cells: ReferenceCells, feature: int, count: int) -> list[tuple[int, str]]:
    """(cell, name) of the cells that this feature can fill, in order."""
    used, categories = cells.bins[feature], cells.categories[feature]
    missing, unseen, above = count - 2, count - 1, count - 3
    if categories:
        names = list(categories[:used])
        if len(categories) > MAX_CATEGORY_CELLS:
            names[-1] = "all others"
        return [*((FIRST_BIN + i, name) for i, name in enumerate(names)), (missing, "missing"), (unseen, "unseen")]
    edges = [edge for edge in cells.edges[feature] if edge is not None]
    bins = [(FIRST_BIN + i, f"{edges[i]:.4g} to {edges[i + 1]:.4g}") for i in range(used)]
    if not edges:
        return [(missing, "missing")]
    return [(BELOW, f"below {edges[0]:.4g}"), *bins, (above, f"{edges[-1]:.4g} and above"), (missing, "missing")]
