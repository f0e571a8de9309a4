"""Whether a graph that takes one row at a time may take several: the opened graph must answer them together as it does one by one."""

from collections.abc import Callable
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import VerdictError
from edgefleet.package import ModelPackage

# open: the first side is left open. mended: reshapes to one row too. one row: as it is.
Opening = Literal["open", "mended", "one row"]
_ROWS: Final = 5
# Of the largest margin: blocks of rows are added up in another order than one row.
_SAME: Final = 1e-5


def first_that_works(
    assembled: Callable[[Opening], bytes], batch: int | None, package: ModelPackage, asked: Callable[[bytes, Any], Any]
) -> bytes:
    """The graph with an open batch where that answers as rows alone do, else the one that takes one row.

    Args:
        assembled: Writes the graph.
        batch: Rows that the file takes at once; None: any number.
        package: Whose rows are asked.
        asked: Margins [n, K] of a graph for rows at once; raises what it wants where it cannot.

    Raises:
        VerdictError: The file takes several rows at once and no other number.
    """
    x = _probes(package)
    reason = ""
    openings: tuple[Opening, ...] = ("open", "mended")
    for opening in openings:
        content = assembled(opening)
        try:
            alone = np.concatenate([asked(content, x[i : i + 1]) for i in range(len(x))])
            together = np.asarray(asked(content, x))
        except Exception as err:  # runtimes raise their own kinds where a side is fixed inside
            reason = " ".join(str(err).split())[:160]
            continue
        if together.shape == alone.shape and _same(together, alone) and _as_it_was(assembled, asked, x, alone, batch):
            return content
        reason = "rows together are answered otherwise than alone"
    if batch not in (None, 1):
        raise VerdictError(f"the graph takes {batch} rows at once and no other number ({reason}); export it with an open batch")
    content = assembled("one row")
    try:
        asked(content, x[:1])
    except Exception as err:
        raise VerdictError(f"the wrapped graph does not run: {' '.join(str(err).split())[:200]}") from err
    return content


def _as_it_was(
    assembled: Callable[[Opening], bytes], asked: Callable[[bytes, Any], Any], x: Any, alone: NDArray[Any], batch: int | None
) -> bool:
    """A graph whose sides were opened must still answer what it did."""
    if batch != 1:
        return True  # nothing was changed, or there is no answer to one row to compare with; parity will tell
    before = np.concatenate([asked(assembled("one row"), x[i : i + 1]) for i in range(len(x))])
    return _same(alone, before)


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    size = float(np.abs(np.nan_to_num(other)).max()) or 1.0
    return bool(np.allclose(one, other, rtol=0, atol=_SAME * size, equal_nan=True))


def _probes(package: ModelPackage) -> NDArray[np.float32]:
    """Different rows of the package, at least two."""
    x = np.concatenate([package.rows(kind).x for kind in ("golden", "parity", "calibration")])
    first = np.unique(x.reshape(len(x), -1), axis=0, return_index=True)[1]
    chosen = x[np.sort(first)[:_ROWS]]
    return np.ascontiguousarray(chosen if len(chosen) > 1 else np.concatenate([chosen, chosen + np.float32(1)]), np.float32)
