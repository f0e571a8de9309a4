"""When a device that was asked and not heard since gave the place of its site back."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rollout_member", sa.Column("parked_at", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("rollout_member", "parked_at")
