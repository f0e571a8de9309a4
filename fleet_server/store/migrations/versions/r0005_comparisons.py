"""Comparisons of devices with their controls, labelled rows, peaks of memory, and experiments."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ID = sa.String(length=64)


def _of_rollout(table: str, *columns: sa.Column, keys: tuple[str, ...]) -> None:  # type: ignore[type-arg]
    op.create_table(
        table,
        sa.Column("rollout_id", _ID, nullable=False),
        *columns,
        sa.ForeignKeyConstraint(["rollout_id"], ["rollout.rollout_id"], name=op.f(f"fk_{table}_rollout_id_rollout")),
        sa.PrimaryKeyConstraint(*keys, name=op.f(f"pk_{table}")),
    )


def _of_device(table: str, *columns: sa.schema.SchemaItem, keys: tuple[str, ...]) -> None:
    op.create_table(
        table,
        sa.Column("device_id", _ID, nullable=False),
        *columns,
        sa.ForeignKeyConstraint(["device_id"], ["device.device_id"], name=op.f(f"fk_{table}_device_id_device"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint(*keys, name=op.f(f"pk_{table}")),
    )


def upgrade() -> None:
    _of_device(
        "comparison_task",
        sa.Column("rollout_id", _ID, nullable=False),
        sa.Column("look_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollout.rollout_id"], name=op.f("fk_comparison_task_rollout_id_rollout")),
        keys=("device_id", "rollout_id"),
    )
    op.create_index("ix_comparison_task_look", "comparison_task", ["rollout_id", "look_at"])
    _of_rollout(
        "comparison_control",
        sa.Column("control_id", _ID, nullable=False),
        sa.Column("device_id", _ID, nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=False),
        keys=("rollout_id", "control_id"),
    )
    _of_rollout(
        "comparison",
        sa.Column("gate", sa.String(length=32), nullable=False),
        sa.Column("device_id", _ID, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("differences", sa.Text(), server_default="[]", nullable=False),
        sa.Column("reason", sa.String(length=200), server_default="", nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        keys=("rollout_id", "gate", "device_id"),
    )
    _of_rollout(
        "comparison_wealth",
        sa.Column("gate", sa.String(length=32), nullable=False),
        sa.Column("logs", sa.Text(), nullable=False),
        sa.Column("devices", sa.BigInteger(), nullable=False),
        sa.Column("left_out", sa.BigInteger(), nullable=False),
        keys=("rollout_id", "gate"),
    )
    _of_device(
        "device_peak",
        sa.Column("from_at", sa.BigInteger(), nullable=False),
        sa.Column("rss_bytes", sa.BigInteger(), nullable=False),
        keys=("device_id", "from_at"),
    )
    _of_device(
        "labelled",
        sa.Column("project", _ID, nullable=False),
        sa.Column("bundle_digest", _ID, nullable=False),
        sa.Column("rows_at", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("right", sa.BigInteger(), nullable=False),
        sa.Column("baseline_digest", _ID, server_default="", nullable=False),
        sa.Column("baseline_right", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        keys=("device_id", "project", "bundle_digest", "rows_at"),
    )
    _of_rollout("experiment", sa.Column("sums", sa.Text(), nullable=False), sa.Column("winner_rollout_id", _ID), keys=("rollout_id",))
    _of_rollout(
        "experiment_value",
        sa.Column("device_id", _ID, nullable=False),
        sa.Column("arm", sa.Integer(), nullable=False),
        sa.Column("delivered", sa.Boolean(), nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("reason", sa.String(length=200), server_default="", nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        keys=("rollout_id", "device_id"),
    )


def downgrade() -> None:
    for table in ("experiment_value", "experiment", "labelled", "device_peak", "comparison_wealth", "comparison", "comparison_control"):
        op.drop_table(table)
    op.drop_index("ix_comparison_task_look", "comparison_task")
    op.drop_table("comparison_task")
