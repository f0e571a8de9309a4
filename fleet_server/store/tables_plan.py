"""Tables of what should be: devices, releases, rollouts, assignments, the outbox."""

from typing import Final

import sqlalchemy as sa

from fleet_server.store.metadata import DIGEST, ID, METADATA, device_key
from fleet_server.store.moments import Micros

DEVICE: Final = sa.Table(
    "device",
    METADATA,
    sa.Column("device_id", ID, primary_key=True),
    sa.Column("project", ID, nullable=False, index=True),
    sa.Column("public_key", sa.String(64), nullable=False),
    sa.Column("enrolled_at", Micros, nullable=False),
    sa.Column("enrolled_by", sa.String(120), nullable=False),
    # The counter of the desired state issued last; it only grows, whatever project changed.
    sa.Column("desired_counter", sa.BigInteger, nullable=False, server_default="0"),
    # A device that was taken out stays as a row: its history points to it, and its counter must go on rising if the id comes back.
    sa.Column("removed_at", Micros),
)

# Labels are rows: a selector is a join on an index, a JSON scan is a hundred times slower at a million devices.
DEVICE_LABEL: Final = sa.Table(
    "device_label",
    METADATA,
    sa.Column("key", ID, primary_key=True),
    sa.Column("value", sa.String(200), primary_key=True),
    sa.Column("device_id", ID, sa.ForeignKey("device.device_id", ondelete="CASCADE"), primary_key=True, index=True),
)

# Narrow on purpose: written at every sign of life, no index on what changes.
DEVICE_SEEN: Final = sa.Table(
    "device_seen",
    METADATA,
    device_key(),
    sa.Column("seen_at", Micros, nullable=False),
    sa.Column("connected", sa.Boolean, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("spooled", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("dropped", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("rejected", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("running", sa.Text, nullable=False, server_default="{}"),
)

RELEASE: Final = sa.Table(
    "release",
    METADATA,
    sa.Column("release_id", ID, primary_key=True),
    sa.Column("project", ID, nullable=False),
    sa.Column("version", sa.String(64), nullable=False),
    sa.Column("counter", sa.BigInteger, nullable=False),
    sa.Column("bundle_digest", DIGEST, nullable=False),
    sa.Column("manifest", sa.LargeBinary, nullable=False),
    sa.Column("gates", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("created_at", Micros, nullable=False),
    sa.Column("created_by", sa.String(120), nullable=False),
    sa.UniqueConstraint("project", "version"),
    sa.UniqueConstraint("project", "counter"),
    sa.UniqueConstraint("project", "bundle_digest"),
)

ROLLOUT: Final = sa.Table(
    "rollout",
    METADATA,
    sa.Column("rollout_id", ID, primary_key=True),
    sa.Column("project", ID, nullable=False, index=True),
    sa.Column("release_id", ID, sa.ForeignKey("release.release_id"), nullable=False),
    sa.Column("state", sa.String(32), nullable=False),
    # The engine's own value; its columns above and below exist only so that the database can find it.
    sa.Column("engine", sa.Text, nullable=False),
    sa.Column("policy", sa.Text, nullable=False),
    sa.Column("policy_digest", DIGEST, nullable=False),
    sa.Column("selection", sa.Text, nullable=False),
    sa.Column("created_at", Micros, nullable=False),
    sa.Column("created_by", sa.String(120), nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("decided_at", Micros, nullable=False, server_default="0"),
    # NULL = nothing to do until somebody acts; negative = at once, by any clock (`looks.at_once`).
    sa.Column("due_at", Micros),
    sa.Column("lease_owner", sa.String(64)),
    sa.Column("lease_until", Micros),
    # Of a rollout by evidence, NULL of others: what a sign of life is compared with, so that the ingest needs no policy.
    sa.Column("cell_us", sa.BigInteger),
    sa.Column("soak_us", sa.BigInteger),
    sa.Column("soak_rows", sa.BigInteger),
    # Dwell of the open wave.
    sa.Column("dwell_us", sa.BigInteger),
    # Why devices of the open waves have not been asked yet: reason -> devices, at the last look.
    sa.Column("waits", sa.Text, nullable=False, server_default="{}"),
)
sa.Index("ix_rollout_due", ROLLOUT.c.due_at, sqlite_where=ROLLOUT.c.due_at.isnot(None), postgresql_where=ROLLOUT.c.due_at.isnot(None))

ROLLOUT_MEMBER: Final = sa.Table(
    "rollout_member",
    METADATA,
    sa.Column("rollout_id", ID, sa.ForeignKey("rollout.rollout_id"), primary_key=True),
    sa.Column("device_id", ID, sa.ForeignKey("device.device_id"), primary_key=True),
    sa.Column("project", ID, nullable=False),
    sa.Column("wave", sa.Integer, nullable=False),
    # Whether the rollout still owns the device.
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("previous_release", ID),
    # Desired counter of the assignment; a report that answers an older one says nothing about this rollout.
    sa.Column("counter", sa.BigInteger),
    sa.Column("assigned_at", Micros),
    # What was seen once stays seen: reported states are overwritten, outcomes are not.
    sa.Column("began_at", Micros),
    sa.Column("committed_at", Micros),
    sa.Column("attested_at", Micros),
    sa.Column("failed_at", Micros),
    sa.Column("failure", sa.String(200), nullable=False, server_default=""),
    sa.Column("rows", sa.BigInteger, nullable=False, server_default="0"),
    # By evidence: wave 0 is the hold-back; the place orders the devices of a wave; the rest is as it was when the device was selected.
    sa.Column("place", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("stratum", sa.Text, nullable=False, server_default=""),
    sa.Column("site", sa.String(200), nullable=False, server_default=""),
    sa.Column("region", sa.String(200), nullable=False, server_default=""),
    # The cell of time in which it began, and from when a sign of life counts for the soak and for the dwell of the open wave.
    sa.Column("cell", sa.BigInteger),
    sa.Column("counts_from", Micros),
    sa.Column("dwelled_at", Micros),
    sa.Column("heard_at", Micros),
    sa.Column("heard_dwell", sa.Boolean, nullable=False, server_default=sa.false()),
    # Proven: committed, attested, soaked. Settled: proven, failed, or no longer selected.
    sa.Column("proven_at", Micros),
    sa.Column("settled", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("left_at", Micros),
    # The device was taken out of the fleet: it is asked nothing more, and what a device of the same id says later is not about this row.
    sa.Column("removed_at", Micros),
    # It was asked, not heard since, and gave the place of its site back: its document asks nothing until it is heard.
    sa.Column("parked_at", Micros),
)
sa.Index("ix_rollout_member_device", ROLLOUT_MEMBER.c.device_id, ROLLOUT_MEMBER.c.project)
sa.Index("ix_rollout_member_site", ROLLOUT_MEMBER.c.rollout_id, ROLLOUT_MEMBER.c.site)
sa.Index("ix_rollout_member_asked", ROLLOUT_MEMBER.c.rollout_id, ROLLOUT_MEMBER.c.assigned_at)
sa.Index("ix_rollout_member_order", ROLLOUT_MEMBER.c.rollout_id, ROLLOUT_MEMBER.c.wave, ROLLOUT_MEMBER.c.place)
sa.Index(
    "uq_rollout_member_one_active",
    ROLLOUT_MEMBER.c.device_id,
    ROLLOUT_MEMBER.c.project,
    unique=True,
    sqlite_where=ROLLOUT_MEMBER.c.active == sa.true(),
    postgresql_where=ROLLOUT_MEMBER.c.active == sa.true(),
)

ASSIGNMENT: Final = sa.Table(
    "assignment",
    METADATA,
    device_key(),
    sa.Column("project", ID, primary_key=True),
    sa.Column("release_id", ID, sa.ForeignKey("release.release_id"), nullable=False),
    sa.Column("rollout_id", ID, nullable=False),
    sa.Column("bundle_digest", DIGEST, nullable=False),
    sa.Column("nonce", sa.String(64), nullable=False),
    sa.Column("trial", sa.Text, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("counter", sa.BigInteger, nullable=False),
    sa.Column("assigned_at", Micros, nullable=False),
)

# The signed bytes themselves: the same counter must always mean the same bytes.
DESIRED: Final = sa.Table(
    "desired",
    METADATA,
    device_key(),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("counter", sa.BigInteger, nullable=False),
    sa.Column("message", sa.LargeBinary, nullable=False),
    sa.Column("issued_at", Micros, nullable=False),
    # The release floor that it tells for the device's own project, 0 for none.
    sa.Column("floor", sa.BigInteger, nullable=False, server_default="0"),
)

# The operator's word that a device may send rows as they came in; the device's own configuration must allow it as well.
SAMPLING_ORDER: Final = sa.Table(
    "sampling_order",
    METADATA,
    device_key(),
    sa.Column("rows_per_hour", sa.Float, nullable=False),
    sa.Column("redact", sa.Text, nullable=False),
    sa.Column("bytes_per_day", sa.BigInteger, nullable=False),
    sa.Column("until", Micros, nullable=False),
    sa.Column("ordered_at", Micros, nullable=False),
    sa.Column("ordered_by", sa.String(120), nullable=False),
)

# What was registered in MLflow last, and why the release that is in service now could not be: two facts, either may be missing.
REGISTERED_CHAMPION: Final = sa.Table(
    "registered_champion",
    METADATA,
    sa.Column("project", ID, primary_key=True),
    sa.Column("release_id", ID, sa.ForeignKey("release.release_id")),
    sa.Column("url", sa.Text, nullable=False, server_default=""),
    sa.Column("name", sa.String(130), nullable=False, server_default=""),
    sa.Column("version", sa.String(32), nullable=False, server_default=""),
    sa.Column("registered_at", Micros),
    sa.Column("waiting_release_id", ID, sa.ForeignKey("release.release_id")),
    sa.Column("trouble", sa.Text, nullable=False, server_default=""),
    sa.Column("trouble_at", Micros),
)

OUTBOX: Final = sa.Table(
    "outbox",
    METADATA,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("topic", sa.String(200), nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Column("retain", sa.Boolean, nullable=False),
    sa.Column("created_at", Micros, nullable=False),
    sqlite_autoincrement=True,
)

LEASE: Final = sa.Table(
    "lease",
    METADATA,
    sa.Column("name", ID, primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("until", Micros, nullable=False),
)

# The part of a release's reference statistics that histograms need.
REFERENCE: Final = sa.Table(
    "reference",
    METADATA,
    sa.Column("reference_digest", DIGEST, primary_key=True),
    sa.Column("project", ID, primary_key=True),
    sa.Column("cells", sa.LargeBinary, nullable=False),
)
