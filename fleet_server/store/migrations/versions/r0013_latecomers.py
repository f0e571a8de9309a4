"""What devices tell that take a release on after its rollout was completed."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_ID = sa.String(length=64)


def upgrade() -> None:
    op.create_table(
        "latecomer",
        sa.Column("rollout_id", _ID, nullable=False),
        sa.Column("device_id", _ID, nullable=False),
        sa.Column("began_at", sa.BigInteger(), nullable=False),
        sa.Column("committed_at", sa.BigInteger(), nullable=True),
        sa.Column("failed_at", sa.BigInteger(), nullable=True),
        sa.Column("failure", sa.String(length=200), nullable=False),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollout.rollout_id"], name=op.f("fk_latecomer_rollout_id_rollout")),
        sa.ForeignKeyConstraint(["device_id"], ["device.device_id"], name=op.f("fk_latecomer_device_id_device"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("rollout_id", "device_id", name=op.f("pk_latecomer")),
    )


def downgrade() -> None:
    op.drop_table("latecomer")
