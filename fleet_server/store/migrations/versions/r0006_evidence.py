"""Rollouts by evidence: membership, and sums by stratum, time, site and group."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ID = sa.String(length=64)
_SITE = sa.String(length=200)
_FALSE = sa.false()


def upgrade() -> None:
    for column in ("cell_us", "soak_us", "soak_rows", "dwell_us"):
        op.add_column("rollout", sa.Column(column, sa.BigInteger(), nullable=True))
    op.add_column("rollout", sa.Column("waits", sa.Text(), server_default="{}", nullable=False))
    _members()
    _of_rollout(
        "rollout_membership",
        sa.Column("salt", _ID, nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.UniqueConstraint("salt", name=op.f("uq_rollout_membership_salt")),
    )
    _of_rollout(
        "rollout_sum",
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("stratum", sa.Text(), nullable=False),
        *_counts("members", "assigned", "begun", "failed", "proven", "heard_dwell"),
        keys=("wave", "stratum"),
    )
    _of_rollout("rollout_cell", sa.Column("cell", sa.BigInteger(), nullable=False), *_counts("begun", "failed"), keys=("cell",))
    _groups()
    _sites()


def _members() -> None:
    flags: list[sa.Column[Any]] = [
        sa.Column(name, sa.Boolean(), server_default=_FALSE, nullable=False) for name in ("heard_dwell", "settled")
    ]
    times: list[sa.Column[Any]] = [
        sa.Column(name, sa.BigInteger(), nullable=True)
        for name in ("cell", "counts_from", "dwelled_at", "heard_at", "proven_at", "left_at")
    ]
    texts: list[sa.Column[Any]] = [
        sa.Column(name, kind, server_default="", nullable=False)
        for name, kind in (("stratum", sa.Text()), ("site", _SITE), ("region", _SITE))
    ]
    for column in (sa.Column("place", sa.BigInteger(), server_default="0", nullable=False), *texts, *times, *flags):
        op.add_column("rollout_member", column)
    op.create_index("ix_rollout_member_site", "rollout_member", ["rollout_id", "site"])
    op.create_index("ix_rollout_member_order", "rollout_member", ["rollout_id", "wave", "place"])


def _groups() -> None:
    _of_rollout(
        "rollout_group",
        sa.Column("site", _SITE, nullable=False),
        sa.Column("cell", sa.BigInteger(), nullable=False),
        sa.Column("region", _SITE, nullable=False),
        sa.Column("first", sa.Boolean(), nullable=False),
        *_counts("exposed", "gone", "unheard", "unsettled"),
        sa.Column("last_wave", sa.Boolean(), server_default=_FALSE, nullable=False),
        sa.Column("live", sa.BigInteger(), nullable=True),
        sa.Column("back_at", sa.BigInteger(), nullable=True),
        sa.Column("due", sa.Boolean(), server_default=_FALSE, nullable=False),
        *_counts("silent", "controls_silent", "controls_missing"),
        sa.Column("out", sa.Boolean(), server_default=_FALSE, nullable=False),
        sa.Column("others_out", sa.Float(), server_default="0", nullable=False),
        sa.Column("look_at", sa.BigInteger(), nullable=True),
        keys=("site", "cell"),
    )
    op.create_index("ix_rollout_group_look", "rollout_group", ["rollout_id", "look_at"])


def _sites() -> None:
    _of_rollout(
        "rollout_site",
        sa.Column("site", _SITE, nullable=False),
        sa.Column("region", _SITE, nullable=False),
        *_counts("exposed", "due", "silent", "missing", "controls", "controls_silent", "controls_missing"),
        *(sa.Column(name, sa.Float(), server_default="0", nullable=False) for name in ("own_silent", "own_missing", "region_weight")),
        *(sa.Column(name, sa.Boolean(), server_default=_FALSE, nullable=False) for name in ("judged", "out", "dark")),
        keys=("site",),
    )
    silent = sa.column("silent") > 0
    op.create_index("ix_rollout_site_silent", "rollout_site", ["rollout_id"], sqlite_where=silent, postgresql_where=silent)
    _of_rollout(
        "rollout_region",
        sa.Column("region", _SITE, nullable=False),
        *_counts(
            "sites", "exposed", "due", "silent", "missing", "controls", "controls_silent", "controls_missing", "judged", "out", "dark"
        ),
        *(sa.Column(name, sa.Float(), server_default="0", nullable=False) for name in ("own_silent", "own_missing", "region_weight")),
        keys=("region",),
    )


def _of_rollout(table: str, *columns: sa.schema.SchemaItem, keys: tuple[str, ...] = ()) -> None:
    op.create_table(
        table,
        sa.Column("rollout_id", _ID, nullable=False),
        *columns,
        sa.ForeignKeyConstraint(["rollout_id"], ["rollout.rollout_id"], name=op.f(f"fk_{table}_rollout_id_rollout")),
        sa.PrimaryKeyConstraint("rollout_id", *keys, name=op.f(f"pk_{table}")),
    )


def _counts(*names: str) -> list[sa.Column]:  # type: ignore[type-arg]
    return [sa.Column(name, sa.BigInteger(), server_default="0", nullable=False) for name in names]


def downgrade() -> None:
    for table in ("rollout_region", "rollout_site", "rollout_group", "rollout_cell", "rollout_sum", "rollout_membership"):
        op.drop_table(table)
    op.drop_index("ix_rollout_member_order", "rollout_member")
    op.drop_index("ix_rollout_member_site", "rollout_member")
    with op.batch_alter_table("rollout_member") as batch:
        for column in (
            "place",
            "stratum",
            "site",
            "region",
            "cell",
            "counts_from",
            "dwelled_at",
            "heard_at",
            "proven_at",
            "left_at",
            "heard_dwell",
            "settled",
        ):
            batch.drop_column(column)
    with op.batch_alter_table("rollout") as batch:
        for column in ("cell_us", "soak_us", "soak_rows", "dwell_us", "waits"):
            batch.drop_column(column)
