"""Groups of devices."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_ID = sa.String(length=64)


def upgrade() -> None:
    op.create_table(
        "device_group",
        sa.Column("project", _ID, nullable=False),
        sa.Column("name", _ID, nullable=False),
        sa.Column("selection", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_by", sa.String(length=120), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.PrimaryKeyConstraint("project", "name", name=op.f("pk_device_group")),
    )


def downgrade() -> None:
    op.drop_table("device_group")
