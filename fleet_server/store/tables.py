"""All tables (SQLAlchemy Core, no ORM: it is twenty times slower where rows come by the thousand).

Times are int64 microseconds UTC, documents are text or bytes that nobody changes in place. What is asked often is a column with an
index; what only travels is a document.
"""

from fleet_server.store.metadata import METADATA
from fleet_server.store.tables_field import (
    ACK_STATE,
    ATTESTATION,
    DEAD_LETTER,
    DEVICE_FACT,
    DEVICE_LOAD,
    DRIFT_ALARM,
    DRIFT_STATE,
    REPORTED,
    STATISTICS,
    TALLY,
    TELEMETRY,
    TOTALS,
)
from fleet_server.store.tables_log import CHANGE, DEVICE_EVENT, EVENT, EXPLANATION, SESSION, TOKEN
from fleet_server.store.tables_plan import (
    ASSIGNMENT,
    DESIRED,
    DEVICE,
    DEVICE_LABEL,
    DEVICE_SEEN,
    LEASE,
    OUTBOX,
    REFERENCE,
    REGISTERED_CHAMPION,
    RELEASE,
    ROLLOUT,
    ROLLOUT_MEMBER,
    SAMPLING_ORDER,
)

__all__ = [
    "ACK_STATE",
    "ASSIGNMENT",
    "ATTESTATION",
    "CHANGE",
    "DEAD_LETTER",
    "DESIRED",
    "DEVICE",
    "DEVICE_EVENT",
    "DEVICE_FACT",
    "DEVICE_LABEL",
    "DEVICE_LOAD",
    "DEVICE_SEEN",
    "DRIFT_ALARM",
    "DRIFT_STATE",
    "EVENT",
    "EXPLANATION",
    "LEASE",
    "METADATA",
    "OUTBOX",
    "REFERENCE",
    "REGISTERED_CHAMPION",
    "RELEASE",
    "REPORTED",
    "ROLLOUT",
    "ROLLOUT_MEMBER",
    "SAMPLING_ORDER",
    "SESSION",
    "STATISTICS",
    "TALLY",
    "TELEMETRY",
    "TOKEN",
    "TOTALS",
]
