"""Tables of what the devices say: reported states, telemetry, statistics, drift."""

from typing import Final

import sqlalchemy as sa

from fleet_server.store.metadata import DIGEST, ID, METADATA, device_key
from fleet_server.store.moments import Micros

REPORTED: Final = sa.Table(
    "reported",
    METADATA,
    device_key(),
    sa.Column("project", ID, primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("counter", sa.BigInteger, nullable=False),
    sa.Column("bundle_digest", sa.String(64), nullable=False),
    sa.Column("model_digest", sa.String(64), nullable=False),
    sa.Column("state", sa.String(32), nullable=False),
    sa.Column("reason", sa.String(500), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("subject_digest", sa.String(64), nullable=False),
    sa.Column("state_at", Micros, nullable=False),
    sa.Column("reported_at", Micros, nullable=False),
)

DEVICE_FACT: Final = sa.Table(
    "device_fact",
    METADATA,
    device_key(),
    sa.Column("quarantined", sa.Text, nullable=False),
    sa.Column("runtimes", sa.Text, nullable=False),
    sa.Column("agent_version", sa.String(64), nullable=False),
    # Whether it begins nothing because of a fleet halt, and the newest document about one that it accepted.
    sa.Column("halted", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("halt_counter", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("halts_refused", sa.BigInteger, nullable=False, server_default="0"),
    # The release floor that it keeps by its word, 0 for none; an attestation signs the same.
    sa.Column("floor", sa.BigInteger, nullable=False, server_default="0"),
)

# A person's word that a bundle may be tried again on a device where it failed; it travels in the signed desired state from `counter` on.
QUARANTINE_LIFT: Final = sa.Table(
    "quarantine_lift",
    METADATA,
    device_key(),
    sa.Column("bundle_digest", DIGEST, primary_key=True),
    sa.Column("counter", sa.BigInteger, nullable=False),
    sa.Column("lifted_at", Micros, nullable=False),
    sa.Column("lifted_by", sa.String(120), nullable=False),
    # Whether the device has reported since; from then on its own list counts again.
    sa.Column("answered", sa.Boolean, nullable=False, server_default=sa.false()),
)

# What a device watches about itself, from its last heartbeat that told it; what it cannot know is NULL.
DEVICE_LOAD: Final = sa.Table(
    "device_load",
    METADATA,
    device_key(),
    sa.Column("heard_at", Micros, nullable=False),
    sa.Column("cpu_permille", sa.BigInteger, nullable=False),
    sa.Column("rss_bytes", sa.BigInteger, nullable=False),
    sa.Column("disk_free_bytes", sa.BigInteger),
    sa.Column("temperature_c", sa.Float),
    sa.Column("clock_offset_ms", sa.BigInteger),
    sa.Column("clock_jumps", sa.BigInteger, nullable=False),
)

TELEMETRY: Final = sa.Table(
    "telemetry",
    METADATA,
    sa.Column("device_id", ID, primary_key=True),
    # 64 random bits do not fit a signed integer everywhere.
    sa.Column("boot", sa.String(20), primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("start_at", Micros, primary_key=True),
    sa.Column("end_at", Micros, nullable=False),
    # A record that could not be used is kept as kind `set-aside` without a body: it is no gap.
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("project", ID, nullable=False),
    sa.Column("model_digest", sa.String(64), nullable=False),
    sa.Column("received_at", Micros, nullable=False, index=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
)

ACK_STATE: Final = sa.Table(
    "ack_state",
    METADATA,
    sa.Column("device_id", ID, primary_key=True),
    sa.Column("boot", sa.String(20), primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("oldest_seq", sa.BigInteger, nullable=False),
    sa.Column("updated_at", Micros, nullable=False),
)

# What the last marker that came back over the broker proves, and whether one ever did; written at most every two seconds.
HEARING: Final = sa.Table(
    "hearing",
    METADATA,
    sa.Column("name", ID, primary_key=True),
    # What arrives was sent after it.
    sa.Column("since", Micros, nullable=False),
    # When the last absence was over; 0: there was none.
    sa.Column("back_at", Micros, nullable=False),
)

DEAD_LETTER: Final = sa.Table(
    "dead_letter",
    METADATA,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("at", Micros, nullable=False),
    sa.Column("topic", sa.String(200), nullable=False),
    sa.Column("reason", sa.String(500), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("head", sa.LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)

TALLY: Final = sa.Table(
    "tally",
    METADATA,
    sa.Column("name", ID, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
)

ATTESTATION: Final = sa.Table(
    "attestation",
    METADATA,
    device_key(),
    sa.Column("project", ID, primary_key=True),
    sa.Column("bundle_digest", sa.String(64), nullable=False, index=True),
    sa.Column("model_digest", sa.String(64), nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("counter", sa.BigInteger, nullable=False),
    sa.Column("attested_at", Micros, nullable=False),
    sa.Column("floor", sa.BigInteger, nullable=False, server_default="0"),
)

# Running totals per device and project, so that no page sums windows.
TOTALS: Final = sa.Table(
    "totals",
    METADATA,
    device_key(),
    sa.Column("project", ID, primary_key=True),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("rejected", sa.BigInteger, nullable=False),
    sa.Column("windows", sa.BigInteger, nullable=False),
    sa.Column("last_window_at", Micros, nullable=False),
    sa.Column("last_latency", sa.Text, nullable=False),
    sa.Column("last_bundle", sa.String(64), nullable=False),
)

# round_at 0 = not judged yet; a round moves it to its time, and the recent ones draw the histograms.
STATISTICS: Final = sa.Table(
    "statistics",
    METADATA,
    device_key(),
    sa.Column("project", ID, primary_key=True),
    sa.Column("reference_digest", DIGEST, primary_key=True),
    sa.Column("round_at", Micros, primary_key=True),
    sa.Column("content", sa.LargeBinary, nullable=False),
    sa.Column("windows", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
)

DRIFT_STATE: Final = sa.Table(
    "drift_state",
    METADATA,
    sa.Column("project", ID, primary_key=True),
    sa.Column("reference_digest", DIGEST, primary_key=True),
    sa.Column("device_id", ID, primary_key=True),
    sa.Column("state", sa.LargeBinary, nullable=False),
    sa.Column("reading", sa.Text, nullable=False),
    sa.Column("windows", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("round_at", Micros, nullable=False),
)

DRIFT_ALARM: Final = sa.Table(
    "drift_alarm",
    METADATA,
    sa.Column("alarm_id", sa.Integer, primary_key=True),
    sa.Column("device_id", ID, sa.ForeignKey("device.device_id", ondelete="CASCADE"), nullable=False),
    sa.Column("project", ID, nullable=False),
    sa.Column("reference_digest", DIGEST, nullable=False),
    sa.Column("features", sa.Text, nullable=False),
    sa.Column("opened_at", Micros, nullable=False),
    sa.Column("cleared_at", Micros),
    sa.Column("cleared_why", sa.String(200), nullable=False, server_default=""),
    sqlite_autoincrement=True,
)
sa.Index(
    "uq_drift_alarm_one_open",
    DRIFT_ALARM.c.device_id,
    DRIFT_ALARM.c.project,
    unique=True,
    sqlite_where=DRIFT_ALARM.c.cleared_at.is_(None),
    postgresql_where=DRIFT_ALARM.c.cleared_at.is_(None),
)
