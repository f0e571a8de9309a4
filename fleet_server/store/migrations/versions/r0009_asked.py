"""Devices of a rollout by when they were asked: each look counts those of more than a batch ago."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_rollout_member_asked", "rollout_member", ["rollout_id", "assigned_at"])


def downgrade() -> None:
    op.drop_index("ix_rollout_member_asked", "rollout_member")
