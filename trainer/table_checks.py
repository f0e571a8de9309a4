"""A pandas table judged against the schema: the matrix that a model would see, and what is wrong where.

Rows that break the schema are not repaired: they are named (row and column, counted from 0 below the header) and kept out; gate G1 decides.
"""

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgefleet.checks import REASONS, TYPE, Checks, Judgement
from edgefleet.errors import InputError
from edgefleet.manifest import Input
from trainer.project import Project
from trainer.sources import columns_of

if TYPE_CHECKING:
    import pandas

MISSING_TEXT = "missing"  # slice of rows whose slice column is empty


@dataclass(frozen=True)
class Breach:
    """One cell that breaks the schema."""

    row: int
    column: str
    value: str
    reason: str
    expected: str

    def __str__(self) -> str:
        return f"row {self.row}, column {self.column}: {self.value}, expected {self.expected}"


@dataclass(frozen=True)
class CheckedTable:
    """A judged table.

    Attributes:
        table: What was judged.
        checks: The schema's checks.
        x: [n, F] float32, not clipped; NaN = missing or no number, categories as index, unseen -1.
        judgement: What is wrong with each value of `x`.
        time: [n] float64 seconds, or None: no time column.
        late: [n] whether the row's time is unreadable or before that of an earlier row of its group.
    """

    table: "pandas.DataFrame"
    checks: Checks
    x: NDArray[np.float32]
    judgement: Judgement
    time: NDArray[np.float64] | None
    late: NDArray[np.bool_]
    time_column: str | None

    @property
    def refused(self) -> NDArray[np.bool_]:
        """[n] rows that are kept out."""
        return self.judgement.refused | self.late

    def total(self) -> int:
        """Number of breaches, one a cell."""
        return self.judgement.refusals() + int(self.late.sum())

    def breaches(self, most: int) -> list[Breach]:
        """The first breaches in the order of rows, at most `most`."""
        found = [self._cell(row, at) for row, at in self.judgement.first(most)]
        found += [self._late_row(int(row)) for row in np.flatnonzero(self.late)[:most]]
        return sorted(found, key=lambda breach: breach.row)[:most]

    def _cell(self, row: int, at: int) -> Breach:
        column = self.checks.inputs[at]
        value = cell_text(self.table[column.name].iloc[row])
        return Breach(row, column.name, value, REASONS[self.judgement.codes[row, at]], self.checks.expected(at))

    def _late_row(self, row: int) -> Breach:
        assert self.time is not None  # noqa: S101  # rows are late by their time only
        assert self.time_column is not None  # noqa: S101  # the same
        value = cell_text(self.table[self.time_column].iloc[row])
        if np.isnan(self.time[row]):
            return Breach(row, self.time_column, value, "type", "a number of seconds or an ISO date")
        return Breach(row, self.time_column, value, "order", "a time not before an earlier row's of the same group; sort the source")


def check_table(project: Project, table: "pandas.DataFrame") -> CheckedTable:
    """Judge a table against the project's schema.

    Raises:
        InputError: A column that the project names is missing.
    """
    wanted = columns_of(project).wanted or ()
    if absent := [name for name in wanted if name not in table.columns]:
        raise InputError(f"data.source lacks {len(absent)} of {len(wanted)} columns: {', '.join(absent[:5])}; mend the source or [schema]")
    checks = Checks(project.inputs)
    x, codes = matrix(table, checks)
    column = project.data.time
    time, late = None, np.zeros(len(table), np.bool_)
    if column is not None:
        time = seconds(table[column])
        group = None if project.data.group is None else table[project.data.group]
        late = np.isnan(time) | late_rows(time, group)
    return CheckedTable(table, checks, x, Judgement(codes), time, late, column)


def matrix(table: "pandas.DataFrame", checks: Checks) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The input columns as float32 [n, F], and reason codes [n, F] of `edgefleet.checks`."""
    x = np.empty((len(table), len(checks.inputs)), np.float32)
    unreadable: dict[int, NDArray[np.bool_]] = {}
    for at, column in enumerate(checks.inputs):
        raw = table[column.name]
        if column.kind == "category":
            x[:, at] = category_index(raw, column)
            continue
        values, texts = numbers(raw)
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which is a breach by name
            x[:, at] = values
        if texts.any():
            unreadable[at] = texts
    codes = checks.judge(x).codes
    for at, texts in unreadable.items():
        codes[texts, at] = TYPE
    return x, codes


def numbers(raw: "pandas.Series[Any]") -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Cells as float64 [n], NaN = missing, and which cells [n] are something else than a number."""
    import pandas

    if raw.dtype.kind in "iufb":
        return raw.to_numpy(np.float64, na_value=np.nan), np.zeros(len(raw), np.bool_)
    if raw.dtype.kind in "mM":  # pandas would make nanoseconds of them
        return np.full(len(raw), np.nan), ~raw.isna().to_numpy(np.bool_)
    values = pandas.to_numeric(raw, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return values, np.isnan(values) & ~raw.isna().to_numpy(np.bool_)


def category_index(raw: "pandas.Series[Any]", column: Input) -> NDArray[np.float32]:
    """Cells as index into the input's categories [n]: -1 unseen, NaN missing."""
    import pandas

    known = {text: i for i, text in enumerate(column.categories)}
    codes, found = pandas.factorize(plain_texts(raw))
    index = [known.get(text, known.get(unicodedata.normalize("NFC", text), -1)) for text in found]
    return np.array([*index, np.nan], np.float32)[codes]  # factorize gives -1, the last, to missing cells


def plain_texts(raw: "pandas.Series[Any]") -> NDArray[Any]:
    """Cells as text objects [n], None = missing; whole numbers without a fraction, so that 1, 1.0 and "1" are one name."""
    missing = raw.isna().to_numpy(np.bool_)
    if raw.dtype.kind == "f":
        values = raw.to_numpy(np.float64)
        whole = np.isfinite(values) & (np.abs(values) < 2**53) & (values == np.floor(values))
        texts = np.array([str(int(v)) if w else repr(float(v)) for v, w in zip(values, whole, strict=True)], object)
    else:
        texts = raw.astype(object).where(~missing, "").astype(str).to_numpy(object)
    texts[missing] = None
    return texts


def texts_of(raw: "pandas.Series[Any]", rows: NDArray[Any], missing: str | None = None) -> NDArray[np.str_]:
    """Cells of some rows as text.

    Args:
        raw: The column.
        rows: Row numbers.
        missing: What stands for an empty cell; None refuses it.

    Raises:
        InputError: An empty cell, named by its row.
    """
    if len(rows) == 0:
        return np.empty(0, np.str_)
    texts = plain_texts(raw if len(rows) == len(raw) else raw.iloc[rows])
    absent = np.array([text is None for text in texts])
    if absent.any():
        if missing is None:
            raise InputError(f"row {rows[absent.argmax()]}, column {raw.name}: empty; every row needs its {raw.name}")
        texts[absent] = missing
    return texts.astype(np.str_)


def numbers_of(raw: "pandas.Series[Any]", rows: NDArray[Any], what: str) -> NDArray[np.float64]:
    """Cells of some rows as finite float64.

    Raises:
        InputError: An empty cell, no number, or an infinity, named by its row.
    """
    values, _ = numbers(raw.iloc[rows])
    if len(wrong := np.flatnonzero(~np.isfinite(values))):
        row = rows[wrong[0]]
        raise InputError(f"row {row}, column {raw.name}: {cell_text(raw.iloc[row])} is no finite number; every row needs its {what}")
    return values


def seconds(raw: "pandas.Series[Any]") -> NDArray[np.float64]:
    """Times as seconds [n] (of dates: since 1970 UTC), NaN = unreadable."""
    import pandas

    values, unreadable = numbers(raw)
    if not unreadable.any():
        return np.where(np.isfinite(values), values, np.nan)
    dates = raw if raw.dtype.kind == "M" else pandas.to_datetime(raw.astype("str"), format="ISO8601", utc=True, errors="coerce")
    if getattr(dates.dt, "tz", None) is None:
        dates = dates.dt.tz_localize("UTC")
    since = (dates - pandas.Timestamp(0, tz="UTC")) / pandas.Timedelta(seconds=1)
    return np.asarray(since.to_numpy(np.float64, na_value=np.nan), np.float64)


def late_rows(time: NDArray[np.float64], group: "pandas.Series[Any] | None") -> NDArray[np.bool_]:
    """[n] whether an earlier row of the same group has a later time."""
    import pandas

    series = pandas.Series(time)
    latest = series.cummax() if group is None else series.groupby(group.to_numpy(), sort=False).cummax()
    return np.asarray(series.to_numpy() < latest.to_numpy())


def cell_text(cell: Any) -> str:
    """A cell as a message shows it."""
    if cell is None or cell != cell or (missing := str(cell)) in ("<NA>", "NaT"):  # NaN is not itself
        return "nothing"
    return repr(missing[:40]) if isinstance(cell, str) else missing[:40]
