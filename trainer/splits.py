"""Which rows train, which choose, which judge: by column, at random, by group, or by time with a purged gap."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import InputError
from trainer.dataset import SPLITS
from trainer.settings import Splits

DROPPED: Final = ""  # rows of a gap belong to no split
_TRAIN, _VALIDATION, _TEST = SPLITS
_WIDTH: Final = f"U{max(map(len, SPLITS))}"

Texts = NDArray[np.str_]


def assign_splits(
    splits: Splits,
    rows: int,
    *,
    column: Texts | None = None,
    stratum: NDArray[np.int64] | None = None,
    content: NDArray[np.uint64] | None = None,
    group: Texts | None = None,
    time: NDArray[np.float64] | None = None,
) -> Texts:
    """The split of each row.

    Args:
        splits: Method, shares, gap and seed.
        rows: Number of rows.
        column: [n] what the source says, for `column`.
        stratum: [n] class of each row: `random` keeps their shares in every split.
        content: [n] equal for equal rows: `random` keeps them together.
        group: [n] for `group`.
        time: [n] seconds, for `time`; the order of rows when None.

    Returns:
        [n] text, one of SPLITS, or DROPPED for rows inside a gap.

    Raises:
        InputError: An unknown split, or one without rows.
    """
    if splits.method == "column":
        assert column is not None  # noqa: S101  # the project's limits say so
        chosen = _checked(column)
    elif splits.method == "random":
        chosen = _random(splits, np.zeros(rows, np.int64) if stratum is None else stratum, content)
    elif splits.method == "group":
        assert group is not None  # noqa: S101  # the project's limits say so
        chosen = _by_group(splits, group)
    else:
        chosen = _by_time(splits, np.arange(rows, dtype=np.float64) if time is None else time)
    check_not_empty(chosen, f"splits by {splits.method} of {rows} rows")
    return chosen


def check_not_empty(split: Texts, what: str) -> None:
    """Refuse a split without rows.

    Raises:
        InputError: One of SPLITS does not occur.
    """
    for name in SPLITS:
        if not (split == name).any():
            raise InputError(f"split {name!r} has no rows ({what}); all of {', '.join(SPLITS)} are needed")


def _checked(column: Texts) -> Texts:
    unknown = ~np.isin(column, SPLITS)
    if unknown.any():
        raise InputError(f"split {str(column[unknown.argmax()])[:40]!r} is unknown: every row is one of {', '.join(SPLITS)}")
    return column.astype(_WIDTH)


def earlier_twins(content: NDArray[np.uint64], split: Texts) -> NDArray[np.bool_]:
    """[n] whether a row of a later split has the same content."""
    order = np.zeros(len(split), np.int64)
    for rank, name in enumerate(SPLITS):
        order[split == name] = rank
    names, member = np.unique(content, return_inverse=True)
    latest = np.zeros(len(names), np.int64)
    np.maximum.at(latest, member, order)
    return np.asarray(order < latest[member])


def _random(splits: Splits, stratum: NDArray[np.int64], content: NDArray[np.uint64] | None) -> Texts:
    """Every class gives its share, to the nearest row; a class of three different rows or more is in every split."""
    if content is not None:
        _, first, member = np.unique(content, return_index=True, return_inverse=True)
        # Where most rows are repeated (a few categories), equality says nothing about a common origin, and whole classes would move.
        if len(content) / 2 <= len(first) < len(content):
            place = np.argsort(first)  # in the order of rows, so that the draw does not depend on the hash
            drawn = np.empty(len(first), _WIDTH)
            drawn[place] = _random(splits, stratum[first[place]], None)
            return drawn[member]
    rng = np.random.default_rng(splits.seed)
    chosen = np.full(len(stratum), _TRAIN, _WIDTH)
    for one in np.unique(stratum):
        own = rng.permutation(np.flatnonzero(stratum == one))
        chosen[own] = _dealt(splits, len(own))
    return chosen


def _by_group(splits: Splits, group: Texts) -> Texts:
    names, member = np.unique(group, return_inverse=True)
    if len(names) < len(SPLITS):
        raise InputError(f"splits by group: the group column has {len(names)} groups, at least {len(SPLITS)} are needed")
    of_group = np.full(len(names), _TRAIN, _WIDTH)
    of_group[np.random.default_rng(splits.seed).permutation(len(names))] = _dealt(splits, len(names))
    return of_group[member]


def _by_time(splits: Splits, time: NDArray[np.float64]) -> Texts:
    order = np.argsort(time, kind="stable")
    sorted_time = time[order]
    borders = _borders(splits, sorted_time)
    in_order = np.full(len(time), _TRAIN, _WIDTH)
    in_order[borders[0] :] = _VALIDATION
    in_order[borders[1] :] = _TEST
    for border in borders:
        # From the older side: what is judged stays whole.
        in_order[max(0, border - splits.gap) : border] = DROPPED
    chosen = np.empty(len(time), _WIDTH)
    chosen[order] = in_order
    return chosen


def _borders(splits: Splits, sorted_time: NDArray[np.float64]) -> Sequence[int]:
    """First validation and first test row; rows of one moment stay together."""
    n = len(sorted_time)
    wanted = [n - _share(splits.test, n) - _share(splits.validation, n), n - _share(splits.test, n)]
    return [int(np.searchsorted(sorted_time, sorted_time[min(max(0, border), n - 1)], "left")) for border in wanted]


def _dealt(splits: Splits, count: int) -> Texts:
    """[count] splits by their shares, to the nearest; of three or more every split has at least one."""
    validation, test = (_share(share, count) for share in (splits.validation, splits.test))
    if validation + test >= count >= len(SPLITS):  # large shares of few: the larger one gives one to training
        validation, test = (count - 1 - test, test) if validation >= test else (validation, count - 1 - validation)
    return np.repeat(np.array([_VALIDATION, _TEST, _TRAIN], _WIDTH), [validation, test, count - validation - test])


def _share(share: float, rows: int) -> int:
    """`share` of the rows to the nearest, and at least one where there are three."""
    return max(round(share * rows), 1 if rows >= len(SPLITS) else 0)
