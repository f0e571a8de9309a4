"""What a live page must ask for again."""

from fleet_server.store import Database, changes


def changes_after(db: Database, seq: int, limit: int = 200) -> list[tuple[int, str]]:
    """(number, topic) of the changes after `seq`, oldest first; topics as in `store.changes.touch`."""
    with db.read() as connection:
        return changes.after(connection, seq, limit)


def newest_change(db: Database) -> int:
    """Number of the newest change, 0 when there was none."""
    with db.read() as connection:
        return changes.last(connection)
