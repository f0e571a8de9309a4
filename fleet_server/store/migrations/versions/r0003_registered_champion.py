"""What was registered in MLflow last, for each project."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "registered_champion",
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("release_id", sa.String(length=64), nullable=True),
        sa.Column("url", sa.Text(), server_default="", nullable=False),
        sa.Column("name", sa.String(length=130), server_default="", nullable=False),
        sa.Column("version", sa.String(length=32), server_default="", nullable=False),
        sa.Column("registered_at", sa.BigInteger(), nullable=True),
        sa.Column("waiting_release_id", sa.String(length=64), nullable=True),
        sa.Column("trouble", sa.Text(), server_default="", nullable=False),
        sa.Column("trouble_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["release_id"], ["release.release_id"], name=op.f("fk_registered_champion_release_id_release")),
        sa.ForeignKeyConstraint(
            ["waiting_release_id"], ["release.release_id"], name=op.f("fk_registered_champion_waiting_release_id_release")
        ),
        sa.PrimaryKeyConstraint("project", name=op.f("pk_registered_champion")),
    )


def downgrade() -> None:
    op.drop_table("registered_champion")
