"""Alembic without its command line: the migrations are packaged, the connection is ours, the transaction is the caller's."""

import threading
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

_FOLDER: Final = Path(__file__).parent / "migrations"
# Alembic keeps the connection it works on in the module `alembic.context`: two threads at once would write into each other's database.
_ONE_AT_A_TIME: Final = threading.Lock()


def upgrade(connection: sa.Connection) -> None:
    """Bring the schema to the newest revision inside the caller's transaction (which holds the write lock)."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(6318004)")
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["connection"] = connection
    with _ONE_AT_A_TIME:
        command.upgrade(config, "head")
