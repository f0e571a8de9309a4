"""Who approved which plan of a rollout. Rows are only added: an approval of an older plan stays readable and counts no more."""

import msgspec
import sqlalchemy as sa

from fleet_server.rollout.approval import Approval
from fleet_server.store.moments import from_micros, to_micros
from fleet_server.store.tables import ROLLOUT_APPROVAL, ROLLOUT_MEMBERSHIP


def of_rollout(connection: sa.Connection, rollout_id: str) -> list[Approval]:
    """All approvals ever given, oldest first."""
    table = ROLLOUT_APPROVAL
    query = sa.select(table).where(table.c.rollout_id == rollout_id).order_by(table.c.approved_at, table.c.approver)
    return [
        Approval(row.approver, row.digest, from_micros(row.approved_at), row.note, msgspec.json.decode(row.parts, type=dict[str, str]))
        for row in connection.execute(query)
    ]


def add(connection: sa.Connection, rollout_id: str, approval: Approval) -> None:
    """Keep one.

    Raises:
        sqlalchemy.exc.IntegrityError: The same person approved the same plan before.
    """
    row = {
        "rollout_id": rollout_id,
        "approver": approval.approver,
        "digest": approval.digest,
        "approved_at": to_micros(approval.approved_at),
        "note": approval.note,
        "parts": msgspec.json.encode(dict(approval.parts)).decode(),
    }
    connection.execute(sa.insert(ROLLOUT_APPROVAL).values(**row))


def membership_document(connection: sa.Connection, rollout_id: str) -> str | None:
    """The salted thresholds of a rollout by evidence, as stored."""
    query = sa.select(ROLLOUT_MEMBERSHIP.c.document).where(ROLLOUT_MEMBERSHIP.c.rollout_id == rollout_id)
    found: str | None = connection.scalar(query)
    return found
