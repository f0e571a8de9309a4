"""Groups that a rollout's selection named when it was planned."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_ID = sa.String(length=64)


def upgrade() -> None:
    op.create_table(
        "planned_group",
        sa.Column("rollout_id", _ID, nullable=False),
        sa.Column("name", _ID, nullable=False),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollout.rollout_id"], name=op.f("fk_planned_group_rollout_id_rollout")),
        sa.PrimaryKeyConstraint("rollout_id", "name", name=op.f("pk_planned_group")),
    )


def downgrade() -> None:
    op.drop_table("planned_group")
