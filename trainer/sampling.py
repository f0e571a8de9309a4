"""The grid of a project's windows as the package carries it, and what it does to the schema."""

from typing import TYPE_CHECKING

import msgspec

from edgefleet.grid import Sampling
from edgefleet.manifest import Input

if TYPE_CHECKING:
    from trainer.project import Project


def sampling_of(project: "Project") -> Sampling | None:
    """The grid of the project's windows, None where rows are taken as they come."""
    window, data = project.cleaning.window, project.data
    if window is None or window.rate_s is None:
        return None
    present = [column.name for column in project.inputs if not column.missing]
    return Sampling(
        rate_s=window.rate_s,
        hold=window.hold,
        reset_after=window.reset_after,
        time=data.time or "",
        group=data.group or "",
        present=present,
    )


def model_inputs(project: "Project") -> list[Input]:
    """The schema of what the model is given: on a grid every value may be missing, whatever a row must have."""
    if sampling_of(project) is None:
        return project.inputs
    return [msgspec.structs.replace(column, missing=True) for column in project.inputs]
