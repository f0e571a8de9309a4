"""The release floor of a project, and the facts that the engine decided on."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_ID = sa.String(length=64)


def upgrade() -> None:
    op.create_table(
        "release_floor",
        sa.Column("project", _ID, nullable=False),
        sa.Column("counter", sa.Integer(), nullable=False),
        sa.Column("release_id", _ID, nullable=False),
        sa.Column("raised_at", sa.BigInteger(), nullable=False),
        sa.Column("raised_by", sa.String(length=120), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.ForeignKeyConstraint(["release_id"], ["release.release_id"], name=op.f("fk_release_floor_release_id_release")),
        sa.PrimaryKeyConstraint("project", name=op.f("pk_release_floor")),
    )
    op.create_table(
        "decision",
        sa.Column("rollout_id", _ID, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("facts_digest", sa.String(length=64), nullable=False),
        sa.Column("facts", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollout.rollout_id"], name=op.f("fk_decision_rollout_id_rollout")),
        sa.PrimaryKeyConstraint("rollout_id", "version", name=op.f("pk_decision")),
    )


def downgrade() -> None:
    op.drop_table("decision")
    op.drop_table("release_floor")
