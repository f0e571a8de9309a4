"""What the devices say: reported states, telemetry, statistics, drift."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ack_state",
        sa.Column("device_id", sa.String(length=64), nullable=False),
        sa.Column("boot", sa.String(length=20), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("oldest_seq", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("device_id", "boot", name=op.f("pk_ack_state")),
    )
    op.create_table(
        "dead_letter",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("topic", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("head", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_dead_letter")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "drift_state",
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("reference_digest", sa.String(length=64), nullable=False),
        sa.Column("device_id", sa.String(length=64), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.Column("reading", sa.Text(), nullable=False),
        sa.Column("windows", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("round_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "reference_digest", "device_id", name=op.f("pk_drift_state")),
    )
    op.create_table(
        "tally",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_tally")),
    )
    op.create_table(
        "telemetry",
        sa.Column("device_id", sa.String(length=64), nullable=False),
        sa.Column("boot", sa.String(length=20), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("start_at", sa.BigInteger(), nullable=False),
        sa.Column("end_at", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("model_digest", sa.String(length=64), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("device_id", "boot", "seq", "start_at", name=op.f("pk_telemetry")),
    )
    op.create_index(op.f("ix_telemetry_received_at"), "telemetry", ["received_at"], unique=False)
    op.create_table(
        "attestation",
        sa.Column("device_id", sa.String(length=64), nullable=False),
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("bundle_digest", sa.String(length=64), nullable=False),
        sa.Column("model_digest", sa.String(length=64), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.Column("attested_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["device.device_id"], name=op.f("fk_attestation_device_id_device"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("device_id", "project", name=op.f("pk_attestation")),
    )
    op.create_index(op.f("ix_attestation_bundle_digest"), "attestation", ["bundle_digest"], unique=False)
    op.create_table(
        "device_fact",
        sa.Column("device_id", sa.String(length=64), nullable=False),
        sa.Column("quarantined", sa.Text(), nullable=False),
        sa.Column("runtimes", sa.Text(), nullable=False),
        sa.Column("agent_version", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["device.device_id"], name=op.f("fk_device_fact_device_id_device"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("device_id", name=op.f("pk_device_fact")),
    )
    op.create_table(
        "drift_alarm",
        sa.Column("alarm_id", sa.Integer(), nullable=False),
        sa.Column("device_id", sa.String(length=64), nullable=False),
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("reference_digest", sa.String(length=64), nullable=False),
        sa.Column("features", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("cleared_at", sa.BigInteger(), nullable=True),
        sa.Column("cleared_why", sa.String(length=200), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["device.device_id"], name=op.f("fk_drift_alarm_device_id_device"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("alarm_id", name=op.f("pk_drift_alarm")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "uq_drift_alarm_one_open",
        "drift_alarm",
        ["device_id", "project"],
        unique=True,
        sqlite_where=sa.text("cleared_at IS NULL"),
        postgresql_where=sa.text("cleared_at IS NULL"),
    )
    op.create_table(
        "reported",
        sa.Column("device_id", sa.String(length=64), nullable=False),
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.Column("bundle_digest", sa.String(length=64), nullable=False),
        sa.Column("model_digest", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("subject_digest", sa.String(length=64), nullable=False),
        sa.Column("state_at", sa.BigInteger(), nullable=False),
        sa.Column("reported_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["device.device_id"], name=op.f("fk_reported_device_id_device"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("device_id", "project", name=op.f("pk_reported")),
    )
    op.create_table(
        "statistics",
        sa.Column("device_id", sa.String(length=64), nullable=False),
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("reference_digest", sa.String(length=64), nullable=False),
        sa.Column("round_at", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("windows", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["device.device_id"], name=op.f("fk_statistics_device_id_device"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("device_id", "project", "reference_digest", "round_at", name=op.f("pk_statistics")),
    )
    op.create_table(
        "totals",
        sa.Column("device_id", sa.String(length=64), nullable=False),
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("rejected", sa.BigInteger(), nullable=False),
        sa.Column("windows", sa.BigInteger(), nullable=False),
        sa.Column("last_window_at", sa.BigInteger(), nullable=False),
        sa.Column("last_latency", sa.Text(), nullable=False),
        sa.Column("last_bundle", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["device.device_id"], name=op.f("fk_totals_device_id_device"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("device_id", "project", name=op.f("pk_totals")),
    )


def downgrade() -> None:
    op.drop_table("totals")
    op.drop_table("statistics")
    op.drop_table("reported")
    op.drop_index(
        "uq_drift_alarm_one_open",
        table_name="drift_alarm",
        sqlite_where=sa.text("cleared_at IS NULL"),
        postgresql_where=sa.text("cleared_at IS NULL"),
    )
    op.drop_table("drift_alarm")
    op.drop_table("device_fact")
    op.drop_index(op.f("ix_attestation_bundle_digest"), table_name="attestation")
    op.drop_table("attestation")
    op.drop_index(op.f("ix_telemetry_received_at"), table_name="telemetry")
    op.drop_table("telemetry")
    op.drop_table("tally")
    op.drop_table("drift_state")
    op.drop_table("dead_letter")
    op.drop_table("ack_state")
