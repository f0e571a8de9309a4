"""Tables of a rollout by evidence: its membership, and sums that are kept up in the transaction of the report that changes them.

No row here belongs to a device: who is deleted stays in the counts.
"""

from typing import Final

import sqlalchemy as sa

from fleet_server.store.metadata import ID, METADATA
from fleet_server.store.moments import Micros


def _rollout() -> sa.Column[str]:
    return sa.Column("rollout_id", ID, sa.ForeignKey("rollout.rollout_id"), primary_key=True)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")


# Salted thresholds, for devices that join later. Apart from the rollout's row, which is read at each look.
ROLLOUT_MEMBERSHIP: Final = sa.Table(
    "rollout_membership",
    METADATA,
    _rollout(),
    sa.Column("salt", sa.String(64), nullable=False, unique=True),
    sa.Column("document", sa.Text, nullable=False),
)

ROLLOUT_SUM: Final = sa.Table(
    "rollout_sum",
    METADATA,
    _rollout(),
    sa.Column("wave", sa.Integer, primary_key=True),
    sa.Column("stratum", sa.Text, primary_key=True),
    _count("members"),
    _count("assigned"),
    _count("begun"),
    _count("failed"),
    _count("proven"),
    _count("heard_dwell"),
)

# By the cell of time in which devices began: how many have been exposed for a whole dwell is a sum over these.
ROLLOUT_CELL: Final = sa.Table(
    "rollout_cell",
    METADATA,
    _rollout(),
    sa.Column("cell", sa.BigInteger, primary_key=True),
    _count("begun"),
    _count("failed"),
)

ROLLOUT_GROUP: Final = sa.Table(
    "rollout_group",
    METADATA,
    _rollout(),
    sa.Column("site", sa.String(200), primary_key=True),
    sa.Column("cell", sa.BigInteger, primary_key=True),
    sa.Column("region", sa.String(200), nullable=False),
    # The first of its site.
    sa.Column("first", sa.Boolean, nullable=False),
    _count("exposed"),
    _count("gone"),
    _count("unheard"),
    _count("unsettled"),
    # Whether everybody may begin when it does: then its controls are the hold-back and devices exposed long ago.
    sa.Column("last_wave", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("live", sa.BigInteger),
    sa.Column("back_at", Micros),
    sa.Column("due", sa.Boolean, nullable=False, server_default=sa.false()),
    _count("silent"),
    _count("controls_silent"),
    _count("controls_missing"),
    sa.Column("out", sa.Boolean, nullable=False, server_default=sa.false()),
    # Of a site that was out: the share of other sites that were, at the same time.
    sa.Column("others_out", sa.Float, nullable=False, server_default="0"),
    sa.Column("look_at", Micros),
)
sa.Index("ix_rollout_group_look", ROLLOUT_GROUP.c.rollout_id, ROLLOUT_GROUP.c.look_at)

# What is summed of due groups, as in `rollout.silence`: counts, and shares of controls times devices.
SITE_COUNTS: Final = ("due", "silent", "missing", "controls", "controls_silent", "controls_missing")
SITE_SHARES: Final = ("own_silent", "own_missing", "region_weight")
SITE_FLAGS: Final = ("judged", "out", "dark")


def _share(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Float, nullable=False, server_default="0")


# Sums over a site's groups.
ROLLOUT_SITE: Final = sa.Table(
    "rollout_site",
    METADATA,
    _rollout(),
    sa.Column("site", sa.String(200), primary_key=True),
    sa.Column("region", sa.String(200), nullable=False),
    _count("exposed"),
    *(_count(name) for name in SITE_COUNTS),
    *(_share(name) for name in SITE_SHARES),
    # Whether its controls can tell an outage, whether there was one after its first exposure, and whether it lasts.
    *(sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false()) for name in SITE_FLAGS),
)
sa.Index(
    "ix_rollout_site_silent",
    ROLLOUT_SITE.c.rollout_id,
    sqlite_where=ROLLOUT_SITE.c.silent > 0,
    postgresql_where=ROLLOUT_SITE.c.silent > 0,
)

# The same over the sites of a region: a vehicle fleet has as many sites as devices, and a decision must not read them one by one.
ROLLOUT_REGION: Final = sa.Table(
    "rollout_region",
    METADATA,
    _rollout(),
    sa.Column("region", sa.String(200), primary_key=True),
    _count("sites"),
    _count("exposed"),
    *(_count(name) for name in (*SITE_COUNTS, *SITE_FLAGS)),
    *(_share(name) for name in SITE_SHARES),
)
