"""Tables of the comparisons: which device is to be compared when, what came out, the stakes of each gate; and of experiments."""

from typing import Final

import sqlalchemy as sa

from fleet_server.store.metadata import DIGEST, ID, METADATA, device_key
from fleet_server.store.moments import Micros

_ROLLOUT: Final = "rollout.rollout_id"

# A device that was given the release and has not answered all gates yet. A row goes when it has.
COMPARISON_TASK: Final = sa.Table(
    "comparison_task",
    METADATA,
    sa.Column("device_id", ID, sa.ForeignKey("device.device_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("rollout_id", ID, sa.ForeignKey(_ROLLOUT), primary_key=True),
    sa.Column("look_at", Micros, nullable=False),
)
sa.Index("ix_comparison_task_look", COMPARISON_TASK.c.rollout_id, COMPARISON_TASK.c.look_at)

# A control stands in one pair only, or its own noise is counted again and again: the primary key says so.
COMPARISON_CONTROL: Final = sa.Table(
    "comparison_control",
    METADATA,
    sa.Column("rollout_id", ID, sa.ForeignKey(_ROLLOUT), primary_key=True),
    sa.Column("control_id", ID, primary_key=True),
    sa.Column("device_id", ID, nullable=False),
    sa.Column("used_at", Micros, nullable=False),
)

# What a gate knows of a device: `given` (final), `left-out` or `unreadable`, with the reason.
COMPARISON: Final = sa.Table(
    "comparison",
    METADATA,
    sa.Column("rollout_id", ID, sa.ForeignKey(_ROLLOUT), primary_key=True),
    sa.Column("gate", sa.String(32), primary_key=True),
    sa.Column("device_id", ID, primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("differences", sa.Text, nullable=False, server_default="[]"),
    sa.Column("reason", sa.String(200), nullable=False, server_default=""),
    sa.Column("at", Micros, nullable=False),
)

COMPARISON_WEALTH: Final = sa.Table(
    "comparison_wealth",
    METADATA,
    sa.Column("rollout_id", ID, sa.ForeignKey(_ROLLOUT), primary_key=True),
    sa.Column("gate", sa.String(32), primary_key=True),
    sa.Column("logs", sa.Text, nullable=False),
    sa.Column("devices", sa.BigInteger, nullable=False),
    sa.Column("left_out", sa.BigInteger, nullable=False),
)

# Largest memory of the agent by hour: a heartbeat keeps only the last value, and a gate asks for peaks before and after.
DEVICE_PEAK: Final = sa.Table(
    "device_peak",
    METADATA,
    device_key(),
    sa.Column("from_at", Micros, primary_key=True),
    sa.Column("rss_bytes", sa.BigInteger, nullable=False),
)

# Rows of a device whose truth became known, as somebody who knows it counted them; the key makes a repeated report harmless.
LABELLED: Final = sa.Table(
    "labelled",
    METADATA,
    device_key(),
    sa.Column("project", ID, primary_key=True),
    sa.Column("bundle_digest", DIGEST, primary_key=True),
    sa.Column("rows_at", Micros, primary_key=True),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("right", sa.BigInteger, nullable=False),
    # The other model on the same rows, where it was asked too.
    sa.Column("baseline_digest", DIGEST, nullable=False, server_default=""),
    sa.Column("baseline_right", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("received_at", Micros, nullable=False),
)

# What an experiment has seen so far, in sums; the plan itself is part of its rollout.
EXPERIMENT: Final = sa.Table(
    "experiment",
    METADATA,
    sa.Column("rollout_id", ID, sa.ForeignKey(_ROLLOUT), primary_key=True),
    sa.Column("sums", sa.Text, nullable=False),
    sa.Column("winner_rollout_id", ID),
)

# One number per device, once.
EXPERIMENT_VALUE: Final = sa.Table(
    "experiment_value",
    METADATA,
    sa.Column("rollout_id", ID, sa.ForeignKey(_ROLLOUT), primary_key=True),
    sa.Column("device_id", ID, primary_key=True),
    sa.Column("arm", sa.Integer, nullable=False),
    sa.Column("delivered", sa.Boolean, nullable=False),
    sa.Column("value", sa.Float),
    sa.Column("reason", sa.String(200), nullable=False, server_default=""),
    sa.Column("at", Micros, nullable=False),
)
