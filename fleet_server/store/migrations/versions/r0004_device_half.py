"""What devices watch about themselves, and the operator's orders about rows that may leave a device."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "device_load",
        sa.Column("device_id", sa.String(length=64), nullable=False),
        sa.Column("heard_at", sa.BigInteger(), nullable=False),
        sa.Column("cpu_permille", sa.BigInteger(), nullable=False),
        sa.Column("rss_bytes", sa.BigInteger(), nullable=False),
        sa.Column("disk_free_bytes", sa.BigInteger(), nullable=True),
        sa.Column("temperature_c", sa.Float(), nullable=True),
        sa.Column("clock_offset_ms", sa.BigInteger(), nullable=True),
        sa.Column("clock_jumps", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["device.device_id"], name=op.f("fk_device_load_device_id_device"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("device_id", name=op.f("pk_device_load")),
    )
    op.create_table(
        "sampling_order",
        sa.Column("device_id", sa.String(length=64), nullable=False),
        sa.Column("rows_per_hour", sa.Float(), nullable=False),
        sa.Column("redact", sa.Text(), nullable=False),
        sa.Column("bytes_per_day", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("ordered_at", sa.BigInteger(), nullable=False),
        sa.Column("ordered_by", sa.String(length=120), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["device.device_id"], name=op.f("fk_sampling_order_device_id_device"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("device_id", name=op.f("pk_sampling_order")),
    )


def downgrade() -> None:
    op.drop_table("sampling_order")
    op.drop_table("device_load")
