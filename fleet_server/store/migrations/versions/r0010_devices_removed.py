"""Devices that were taken out of the fleet, and quarantines that a person lifted."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("device", sa.Column("removed_at", sa.BigInteger(), nullable=True))
    op.add_column("rollout_member", sa.Column("removed_at", sa.BigInteger(), nullable=True))
    op.create_table(
        "quarantine_lift",
        sa.Column("device_id", sa.String(length=64), nullable=False),
        sa.Column("bundle_digest", sa.String(length=64), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.Column("lifted_at", sa.BigInteger(), nullable=False),
        sa.Column("lifted_by", sa.String(length=120), nullable=False),
        sa.Column("answered", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["device.device_id"], name=op.f("fk_quarantine_lift_device_id_device"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("device_id", "bundle_digest", name=op.f("pk_quarantine_lift")),
    )


def downgrade() -> None:
    op.drop_table("quarantine_lift")
    op.drop_column("rollout_member", "removed_at")
    op.drop_column("device", "removed_at")
