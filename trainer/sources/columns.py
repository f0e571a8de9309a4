"""Which columns of the source a project needs, and which of them are text."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.project import Project


@dataclass(frozen=True)
class Columns:
    """What to read.

    Attributes:
        wanted: Names of the columns that are needed, in the order they are named; None: all.
        text: Of these, the ones whose cells stay text as written; None: all.
    """

    wanted: tuple[str, ...] | None = None
    text: frozenset[str] | None = None


def text_columns(project: Project) -> list[str]:
    """Columns whose cells are names: classes, splits, slices, ids, groups, categories. In the order they are named, each once."""
    data = project.data
    named = [data.label] if project.goal.task in ("classification", "anomaly") else []
    named += [data.split] if data.splits.method == "column" else []
    named += [name for name in (data.slice, *data.slices, *project.gates.fairness, data.id, data.group) if name is not None]
    named += [column.name for column in project.inputs if column.kind == "category"]
    return list(dict.fromkeys(name for name in named if name))


def columns_of(project: Project, extra: Sequence[str] = ()) -> Columns:
    """The columns that a project names."""
    data = project.data
    numbers = [column.name for column in project.inputs if column.kind == "number"]
    others = [name for name in (data.label, data.time, data.weight) if name]
    text = text_columns(project)
    # A number input that is also a slice or a group must be read as a number; its text is made from the number.
    stays_text = frozenset(text) - set(numbers)
    return Columns(wanted=tuple(dict.fromkeys([*(c.name for c in project.inputs), *text, *others, *extra])), text=stays_text)
