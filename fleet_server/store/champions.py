"""Champions: the release that is in service in each project, and what of it stands in MLflow's model registry."""

from dataclasses import asdict, dataclass

import sqlalchemy as sa

from fleet_server.rollout import ActionKind, RolloutState
from fleet_server.store.tables import EVENT, REGISTERED_CHAMPION, ROLLOUT
from fleet_server.store.upsert import insert_or_update


@dataclass(frozen=True)
class Registered:
    """What the server knows of one project in the registry.

    Attributes:
        release_id: Registered last, None = none was.
        url: The MLflow server where that was, with `name` and `version` there.
        registered_at: Microseconds UTC.
        waiting_release_id: In service and not registered, None = none that was tried.
        trouble: Why not, one sentence; "" = there is no trouble.
        trouble_at: When it was tried last, microseconds UTC.
    """

    project: str
    release_id: str | None = None
    url: str = ""
    name: str = ""
    version: str = ""
    registered_at: int | None = None
    waiting_release_id: str | None = None
    trouble: str = ""
    trouble_at: int | None = None


def in_service(connection: sa.Connection) -> dict[str, str]:
    """Project -> release of the rollout that was completed last, wherever it went.

    A rollout that was aborted or rolled back never was in service. A completed one is final: going back is a rollout of the older
    release, and once that is completed the older release is the champion again. The order is the log's, which no clock can turn round.
    """
    query = (
        sa.select(ROLLOUT.c.project, ROLLOUT.c.release_id)
        .join(EVENT, sa.and_(EVENT.c.subject_kind == "rollout", EVENT.c.subject == ROLLOUT.c.rollout_id))
        .where(ROLLOUT.c.state == RolloutState.COMPLETED.value, EVENT.c.action == ActionKind.COMPLETE.value)
        .order_by(EVENT.c.seq)
    )
    return {row.project: row.release_id for row in connection.execute(query)}


def registered(connection: sa.Connection) -> dict[str, Registered]:
    """Project -> what is known of it in the registry."""
    return {row.project: Registered(**row._mapping) for row in connection.execute(sa.select(REGISTERED_CHAMPION))}


def note_registered(connection: sa.Connection, known: Registered) -> None:
    """The alias of the project points to this version now; its trouble is over."""
    insert_or_update(connection, REGISTERED_CHAMPION, [asdict(known)])


def note_trouble(connection: sa.Connection, project: str, release_id: str | None, sentence: str, at: int | None) -> None:
    """Why the release in service is not registered; an empty sentence ends the trouble."""
    values = {"project": project, "waiting_release_id": release_id, "trouble": sentence, "trouble_at": at}
    insert_or_update(connection, REGISTERED_CHAMPION, [values])
