"""Tables of what concerns several rollouts at once: halt, approvals, links, changes of devices, release floor, groups, facts decided on."""

from typing import Final

import sqlalchemy as sa

from fleet_server.store.metadata import DIGEST, ID, METADATA, device_key
from fleet_server.store.moments import Micros

# The newest document about a halt of each fleet, as it was signed; older ones are in the log.
FLEET_HALT: Final = sa.Table(
    "fleet_halt",
    METADATA,
    sa.Column("fleet", ID, primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("counter", sa.BigInteger, nullable=False),
    sa.Column("halted", sa.Boolean, nullable=False),
    # Since when it is halted without a break; of a lift, when the halt that it ended had begun.
    sa.Column("since", Micros, nullable=False),
    sa.Column("reason", sa.String(500), nullable=False),
    sa.Column("ordered_by", sa.String(120), nullable=False),
    sa.Column("issued_at", Micros, nullable=False),
    sa.Column("message", sa.LargeBinary, nullable=False),
)

ROLLOUT_APPROVAL: Final = sa.Table(
    "rollout_approval",
    METADATA,
    sa.Column("rollout_id", ID, sa.ForeignKey("rollout.rollout_id"), primary_key=True),
    sa.Column("approver", sa.String(120), primary_key=True),
    # An approval of a plan that has changed since stays for the log and counts no more; the same person may approve the other plan.
    sa.Column("digest", DIGEST, primary_key=True),
    sa.Column("approved_at", Micros, nullable=False),
    sa.Column("note", sa.String(500), nullable=False, server_default=""),
    # What was approved, by part, so that it can be said what has changed.
    sa.Column("parts", sa.Text, nullable=False),
)

# kind: supersedes | queued-behind | fixes | late-rollback.
ROLLOUT_LINK: Final = sa.Table(
    "rollout_link",
    METADATA,
    sa.Column("rollout_id", ID, sa.ForeignKey("rollout.rollout_id"), primary_key=True),
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("other_id", ID, sa.ForeignKey("rollout.rollout_id"), primary_key=True),
    sa.Column("linked_at", Micros, nullable=False),
    # Of queued-behind: who wants it started once the other one is over; empty: nobody yet.
    sa.Column("start_by", sa.String(120), nullable=False, server_default=""),
)
sa.Index("ix_rollout_link_other", ROLLOUT_LINK.c.other_id, ROLLOUT_LINK.c.kind)

# What devices tell that had not begun when their rollout was completed: its own evidence stays what it was decided on.
LATECOMER: Final = sa.Table(
    "latecomer",
    METADATA,
    sa.Column("rollout_id", ID, sa.ForeignKey("rollout.rollout_id"), primary_key=True),
    device_key(),
    sa.Column("began_at", Micros, nullable=False),
    sa.Column("committed_at", Micros),
    sa.Column("failed_at", Micros),
    sa.Column("failure", sa.String(200), nullable=False),
)

# One row for each change of what a device should run; kept for some weeks.
ACTIVATION: Final = sa.Table(
    "activation",
    METADATA,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("device_id", ID, sa.ForeignKey("device.device_id", ondelete="CASCADE"), nullable=False),
    sa.Column("project", ID, nullable=False),
    sa.Column("at", Micros, nullable=False),
    # "" is nothing of ours.
    sa.Column("from_release", ID, nullable=False),
    sa.Column("to_release", ID, nullable=False),
    sa.Column("rollout_id", ID, nullable=False),
    # Whether it went to a new release, or back.
    sa.Column("forward", sa.Boolean, nullable=False),
    sqlite_autoincrement=True,
)
sa.Index("ix_activation_device", ACTIVATION.c.device_id, ACTIVATION.c.project, ACTIVATION.c.at)

# The oldest release of a project that may still be given to a device, as it was raised last; earlier ones are in the log.
RELEASE_FLOOR: Final = sa.Table(
    "release_floor",
    METADATA,
    sa.Column("project", ID, primary_key=True),
    sa.Column("counter", sa.Integer, nullable=False),
    sa.Column("release_id", ID, sa.ForeignKey("release.release_id"), nullable=False),
    sa.Column("raised_at", Micros, nullable=False),
    sa.Column("raised_by", sa.String(120), nullable=False),
    sa.Column("reason", sa.String(500), nullable=False),
    # Whether there may be devices that have not been told it.
    sa.Column("telling", sa.Boolean, nullable=False, server_default=sa.true()),
)

# A name for a selection; a rollout keeps what it meant when it was planned.
DEVICE_GROUP: Final = sa.Table(
    "device_group",
    METADATA,
    sa.Column("project", ID, primary_key=True),
    sa.Column("name", ID, primary_key=True),
    sa.Column("selection", sa.Text, nullable=False),
    sa.Column("changed_at", Micros, nullable=False),
    sa.Column("changed_by", sa.String(120), nullable=False),
    sa.Column("reason", sa.String(500), nullable=False),
)

# Groups that a rollout's selection named when it was planned; what they meant then is in the rollout's own selection.
PLANNED_GROUP: Final = sa.Table(
    "planned_group",
    METADATA,
    sa.Column("rollout_id", ID, sa.ForeignKey("rollout.rollout_id"), primary_key=True),
    sa.Column("name", ID, primary_key=True),
)

# What the engine decided on: one row for each action, under the version of the rollout that it found.
DECISION: Final = sa.Table(
    "decision",
    METADATA,
    sa.Column("rollout_id", ID, sa.ForeignKey("rollout.rollout_id"), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("decided_at", Micros, nullable=False),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("facts_digest", DIGEST, nullable=False),
    # Compressed; NULL where the facts name too many devices to be kept.
    sa.Column("facts", sa.LargeBinary),
)
