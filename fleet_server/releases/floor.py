"""What the release floor of a project refuses."""

import sqlalchemy as sa

from fleet_server.errors import ConflictError
from fleet_server.store import floors


def refuse_below(connection: sa.Connection, project: str, release_id: str, counter: int, what: str) -> None:
    """Refuse what would give a release below the floor to a device.

    Args:
        connection: A transaction.
        project: Of the release.
        release_id: Which.
        counter: Its counter.
        what: What is refused, as the beginning of the sentence.

    Raises:
        ConflictError: It lies below.
    """
    floor = floors.current(connection, project)
    if floor is not None and counter < floor.counter:
        raised = f"{floor.raised_by} raised it to release {floor.release_id} ({floor.reason})"
        remedy = "choose a release at or above it"
        raise ConflictError(
            f"{what}: release {release_id} has counter {counter}, the release floor of {project} is {floor.counter}; {raised}; {remedy}"
        )
