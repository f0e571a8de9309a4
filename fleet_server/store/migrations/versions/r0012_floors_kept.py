"""Which release floor each device was told, keeps by its word, and has signed; and which floors are still being told."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_TABLES = ("desired", "device_fact", "attestation")


def upgrade() -> None:
    for table in _TABLES:
        op.add_column(table, sa.Column("floor", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("release_floor", sa.Column("telling", sa.Boolean(), server_default=sa.true(), nullable=False))


def downgrade() -> None:
    op.drop_column("release_floor", "telling")
    for table in reversed(_TABLES):
        op.drop_column(table, "floor")
