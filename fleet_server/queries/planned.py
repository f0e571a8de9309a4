"""What a person who plans a rollout chooses from: labels and groups of a project, the policy of its last rollout."""

from typing import Any, Final

import msgspec
import sqlalchemy as sa

from fleet_server.read_plan import LabelWords, LastPolicy, Vocabulary
from fleet_server.store import Database, groups, rollouts, selecting
from fleet_server.store.tables import RELEASE, ROLLOUT

_VALUES: Final = 6
_KEYS: Final = 32


def vocabulary(db: Database, project: str) -> Vocabulary:
    """Labels that the project's devices have, some values of each, and its groups."""
    with db.read() as connection:
        found = []
        for key in selecting.keys(connection, project)[:_KEYS]:
            values = selecting.values(connection, project, key, limit=_VALUES + 1)
            found.append(LabelWords(key, values[:_VALUES], len(values) > _VALUES))
        return Vocabulary(found, groups.names(connection, project))


def last_policy(db: Database, release_id: str) -> LastPolicy | None:
    """The policy of the newest rollout of the project of a release; None when there was none, or no such release."""
    with db.read() as connection:
        project: Any = sa.select(RELEASE.c.project).where(RELEASE.c.release_id == release_id).scalar_subquery()
        query = sa.select(ROLLOUT.c.rollout_id).where(ROLLOUT.c.project == project)
        for rollout_id in connection.scalars(query.order_by(ROLLOUT.c.created_at.desc(), ROLLOUT.c.rollout_id).limit(20)).all():
            stored = rollouts.load_readable(connection, rollout_id)
            if stored is not None and stored.rollout.experiment is None:
                document: dict[str, Any] = msgspec.to_builtins(stored.rollout.policy)
                return LastPolicy(stored.rollout.policy.name, stored.policy_digest, stored.rollout.rollout_id, document)
    return None
