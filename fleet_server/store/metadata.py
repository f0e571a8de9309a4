"""What all tables share: the naming convention, the lengths of ids, the reference to a device."""

from typing import Final

import sqlalchemy as sa

# A constraint without a name cannot be changed by a migration.
METADATA: Final = sa.MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

ID: Final = sa.String(64)
DIGEST: Final = sa.String(64)


def device_key() -> sa.Column[str]:
    """The column `device_id` of a table that belongs to devices and goes with them."""
    return sa.Column("device_id", ID, sa.ForeignKey("device.device_id", ondelete="CASCADE"), primary_key=True)
