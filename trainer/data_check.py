"""`edgefleet data check`: everything that can be said about the rows before training, as plain values."""

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from edgefleet.checks import TYPE
from edgefleet.errors import ConfigError, InputError
from trainer.dataset import DataSet
from trainer.load import rows_of
from trainer.project import Project
from trainer.sources import content_digest, read_table
from trainer.splits import earlier_twins
from trainer.suspects import leak_suspects
from trainer.table_checks import Breach, CheckedTable, check_table, numbers

if TYPE_CHECKING:
    import pandas


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        rows: Rows of the source.
        columns: Columns that the project reads.
        digest: Sha256 of what was read.
        splits: Usable rows by split; empty when the rows cannot be used.
        violations: Cells that break the schema: the first ones.
        violations_total: Number of all of them.
        rows_refused: Rows that are kept out because of them.
        errors: Why the rows cannot be used at all, or a cleaning step cannot be compiled.
        warnings: What a person should look at; refuses nothing.
    """

    rows: int
    columns: int
    digest: str
    splits: dict[str, int]
    violations: list[dict[str, Any]]
    violations_total: int
    rows_refused: int
    errors: list[str]
    warnings: list[str]

    @property
    def good(self) -> bool:
        """Whether nothing was found that must be mended."""
        return not self.violations_total and not self.errors


def check_data(project: Project, most: int = 100) -> Findings:
    """Read the source and look at every row.

    Args:
        project: The settings.
        most: Violations that are named.

    Raises:
        ConfigError: The source cannot be found, read or called.
        InputError: It is damaged, has no rows, or lacks a column.
    """
    table = read_table(project)
    checked = check_table(project, table)
    errors, warnings, splits = [], [*_counted(checked), *_spacing(project, table), *_gaps(checked, project)], {}
    errors += _refused_steps(project)
    warnings += _texts_for_numbers(checked)
    warnings += _unlabelled(project, table)
    try:
        rows = rows_of(project, checked)
    except (InputError, ConfigError) as err:  # what the rows do to the settings (a grid, windows too large) is a finding too
        errors.append(str(err))
    else:
        splits = {name: int((rows.split == name).sum()) for name in ("train", "validation", "test")}
        warnings += _twins(rows, project.gates.max_equal_rows_fraction)
        for suspect in leak_suspects(rows, [column.name for column in project.inputs]):
            warnings.append(
                f"input {suspect.column} alone tells the answer ({suspect.measure} {suspect.value:.3f} > .98): "
                "is it known before the answer is? If not, it is a target leak; take it out of [schema]"
            )
    return Findings(
        rows=len(table),
        columns=table.shape[1],
        digest=content_digest(table),
        splits=splits,
        violations=[_plain(breach) for breach in checked.breaches(most)],
        violations_total=checked.total(),
        rows_refused=int(checked.refused.sum()),
        errors=errors,
        warnings=warnings,
    )


def _plain(breach: Breach) -> dict[str, Any]:
    return {"row": breach.row, "column": breach.column, "value": breach.value, "reason": breach.reason, "expected": breach.expected}


def _refused_steps(project: Project) -> list[str]:
    from trainer.cleaning import refusals

    return list(refusals(project.cleaning, project.inputs))


def _unlabelled(project: Project, table: "pandas.DataFrame") -> list[str]:
    label = project.data.label
    empty = int(table[label].isna().sum()) if label and project.data.unlabelled == "drop" else 0
    return [f"column {label}: {empty} of {len(table)} rows have no label and are left out"] if empty else []


def _twins(rows: DataSet, allowed_fraction: float) -> list[str]:
    from trainer.gates.leakage import row_hashes

    twins = int(earlier_twins(row_hashes(rows.x), rows.split).sum())
    remedy = (
        f"gate G3 allows {allowed_fraction:.1%} of validation and test rows; data.splits.equal_rows = 'purge' leaves the earlier ones out"
    )
    return [f"{twins} of {len(rows)} rows equal a row of a later split: {remedy}"] if twins else []


def _texts_for_numbers(checked: CheckedTable) -> list[str]:
    """The commonest text of each column of numbers: it may stand for a missing value."""
    found = []
    for at, column in enumerate(checked.checks.inputs):
        wrong = checked.judgement.codes[:, at] == TYPE
        if wrong.any():
            word, n = next(iter(checked.table[column.name][wrong].astype(str).value_counts().items()))
            hint = "if it means missing, name it in data.missing_values and set missing = true"
            found.append(f"column {column.name}: the commonest text among its numbers is {str(word)[:40]!r}, {n} times; {hint}")
    return found


def _counted(checked: CheckedTable) -> list[str]:
    """Values that are counted only: out of a range that does not reject, and unseen categories."""
    words = {"outside": "outside [low, high]", "unseen": "of a category that [schema] does not list"}
    return [
        f"column {column.name}: {n} of {len(checked.x)} values {words[reason]}; they are counted, not refused"
        for at, column in enumerate(checked.checks.inputs)
        for reason, n in checked.judgement.counted(at).items()
    ]


def _spacing(project: Project, table: "pandas.DataFrame") -> list[str]:
    """Inputs that float32 cannot tell apart, such as seconds since 1970."""
    from trainer.cleaning import float32_warnings

    names = [column.name for column in project.inputs if column.kind == "number"]
    if not names:
        return []
    found: list[str] = []
    for name in names:  # one column at a time: float64 of all of them would double the table
        found += float32_warnings(numbers(table[name])[0][:, np.newaxis], [name])
    return found


def _gaps(checked: CheckedTable, project: Project) -> list[str]:
    """Where time jumps by more than ten usual steps."""
    if checked.time is None:
        return []
    import pandas

    time = pandas.Series(checked.time).where(~checked.late)
    step = time.diff() if project.data.group is None else time.groupby(checked.table[project.data.group].to_numpy(), sort=False).diff()
    usual = float(step[step > 0].median()) if (step > 0).any() else 0.0
    wide = np.flatnonzero(step.to_numpy() > 10 * usual) if usual else np.empty(0, np.int64)
    if not len(wide):
        return []
    row = int(step.to_numpy()[wide].argmax())
    longest = float(step.iloc[wide[row]])
    return [
        f"column {checked.time_column}: {len(wide)} gaps of more than ten usual steps ({usual:g} s); "
        f"the longest, {longest:g} s, before row {wide[row]}"
    ]
