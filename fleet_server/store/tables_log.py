"""Tables of who did what, who may, and what has changed: events, tokens, sessions, explanations, changes."""

from typing import Final

import sqlalchemy as sa

from fleet_server.store.metadata import DIGEST, ID, METADATA
from fleet_server.store.moments import Micros

EVENT: Final = sa.Table(
    "event",
    METADATA,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("at", Micros, nullable=False),
    sa.Column("actor", sa.String(120), nullable=False),
    sa.Column("action", sa.String(64), nullable=False),
    sa.Column("subject_kind", sa.String(16), nullable=False),
    sa.Column("subject", ID, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    # Each entry hashes the stored text of itself and the hash of the one before: a changed or missing entry breaks the chain.
    sa.Column("hash", DIGEST, nullable=False),
)
sa.Index("ix_event_subject", EVENT.c.subject_kind, EVENT.c.subject, EVENT.c.seq)

# What devices tell about themselves; not in the chain, bounded per device.
DEVICE_EVENT: Final = sa.Table(
    "device_event",
    METADATA,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("device_id", ID, sa.ForeignKey("device.device_id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("at", Micros, nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("detail", sa.String(500), nullable=False),
    sa.Column("bundle_digest", sa.String(64), nullable=False),
    sqlite_autoincrement=True,
)

EXPLANATION: Final = sa.Table(
    "explanation",
    METADATA,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("device_id", ID, sa.ForeignKey("device.device_id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("project", ID, nullable=False, index=True),
    sa.Column("bundle_digest", sa.String(64), nullable=False),
    sa.Column("at", Micros, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)

# Only the sha256 of a token is kept: 256 random bits need no slow hash, and who reads the table cannot sign in.
TOKEN: Final = sa.Table(
    "token",
    METADATA,
    sa.Column("token_id", ID, primary_key=True),
    sa.Column("sha256", DIGEST, nullable=False, unique=True),
    sa.Column("name", sa.String(120), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("device_id", ID, sa.ForeignKey("device.device_id", ondelete="CASCADE")),
    sa.Column("created_at", Micros, nullable=False),
    sa.Column("expires_at", Micros, nullable=False),
    sa.Column("revoked_at", Micros),
)

# Rows, not signed cookies: signing out and revoking a token take effect at once.
SESSION: Final = sa.Table(
    "session",
    METADATA,
    sa.Column("sha256", DIGEST, primary_key=True),
    sa.Column("token_id", ID, sa.ForeignKey("token.token_id", ondelete="CASCADE"), nullable=False),
    sa.Column("created_at", Micros, nullable=False),
    sa.Column("expires_at", Micros, nullable=False),
)

# What a live page must ask for again; bounded, and only a hint: the page asks for everything when it fell behind.
CHANGE: Final = sa.Table(
    "change",
    METADATA,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("topic", sa.String(100), nullable=False),
    sa.Column("at", Micros, nullable=False),
    sqlite_autoincrement=True,
)
