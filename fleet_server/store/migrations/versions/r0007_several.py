"""Several rollouts at once: the fleet halt, approvals, links between rollouts, what devices were changed to."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ID = sa.String(length=64)


def upgrade() -> None:
    op.add_column("device_fact", sa.Column("halted", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("device_fact", sa.Column("halt_counter", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("device_fact", sa.Column("halts_refused", sa.BigInteger(), server_default="0", nullable=False))
    op.create_table(
        "fleet_halt",
        sa.Column("fleet", _ID, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.Column("halted", sa.Boolean(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("ordered_by", sa.String(length=120), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("message", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("fleet", name=op.f("pk_fleet_halt")),
    )
    op.create_table(
        "rollout_approval",
        sa.Column("rollout_id", _ID, nullable=False),
        sa.Column("approver", sa.String(length=120), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("approved_at", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.String(length=500), server_default="", nullable=False),
        sa.Column("parts", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollout.rollout_id"], name=op.f("fk_rollout_approval_rollout_id_rollout")),
        sa.PrimaryKeyConstraint("rollout_id", "approver", "digest", name=op.f("pk_rollout_approval")),
    )
    op.create_table(
        "rollout_link",
        sa.Column("rollout_id", _ID, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("other_id", _ID, nullable=False),
        sa.Column("linked_at", sa.BigInteger(), nullable=False),
        sa.Column("start_by", sa.String(length=120), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollout.rollout_id"], name=op.f("fk_rollout_link_rollout_id_rollout")),
        sa.ForeignKeyConstraint(["other_id"], ["rollout.rollout_id"], name=op.f("fk_rollout_link_other_id_rollout")),
        sa.PrimaryKeyConstraint("rollout_id", "kind", "other_id", name=op.f("pk_rollout_link")),
    )
    op.create_index("ix_rollout_link_other", "rollout_link", ["other_id", "kind"])
    op.create_table(
        "activation",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("device_id", _ID, nullable=False),
        sa.Column("project", _ID, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("from_release", _ID, nullable=False),
        sa.Column("to_release", _ID, nullable=False),
        sa.Column("rollout_id", _ID, nullable=False),
        sa.Column("forward", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["device.device_id"], name=op.f("fk_activation_device_id_device"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_activation")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_activation_device", "activation", ["device_id", "project", "at"])


def downgrade() -> None:
    for name in ("activation", "rollout_link", "rollout_approval", "fleet_halt"):
        op.drop_table(name)
    for name in ("halts_refused", "halt_counter", "halted"):
        op.drop_column("device_fact", name)
