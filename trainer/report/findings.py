"""What the sections of a data report draw from, computed once."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trainer.dataset import DataSet
from trainer.project import Project
from trainer.report.associations import Association, associations
from trainer.report.distributions import Distribution, distribution
from trainer.report.shift import Shift, split_shifts

MOST_ROWS: Final = 50_000


@dataclass(frozen=True)
class Findings:
    """The data and what was computed of them.

    Attributes:
        project: The project.
        rows: All rows.
        last: [n, F] of all rows; of windows the newest row.
        some: Indices of the rows that pictures come from.
        told: Associations with the label, strongest first.
        shifts: Largest effect first.
        drawn: One distribution an input.
    """

    project: Project
    rows: DataSet
    last: NDArray[np.float32]
    some: NDArray[np.int64]
    told: list[Association]
    shifts: list[Shift]
    drawn: list[Distribution]

    @property
    def names(self) -> list[str]:
        """Of the inputs."""
        return [declared.name for declared in self.project.inputs]

    @property
    def is_category(self) -> list[bool]:
        """Of each input."""
        return [declared.kind == "category" for declared in self.project.inputs]


def find(project: Project, rows: DataSet) -> Findings:
    """All of it; pictures, shift and correlation come from at most MOST_ROWS rows."""
    last = rows.x[:, -1] if rows.x.ndim == 3 else rows.x
    some = np.arange(len(rows))
    if len(rows) > MOST_ROWS:
        some = np.sort(np.random.default_rng(0).choice(len(rows), MOST_ROWS, replace=False))
    x, split = last[some], rows.split[some]
    is_category = [declared.kind == "category" for declared in project.inputs]
    train = split == "train"
    told = associations(x[train], rows.label[some][train], is_category, len(rows.classes))
    drawn = [distribution(declared, x[:, i], split) for i, declared in enumerate(project.inputs)]
    return Findings(project, rows, last, some, told, split_shifts(x, split, is_category), drawn)
