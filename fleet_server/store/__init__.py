"""The fleet's memory: tables, transactions, and one module per kind of fact.

Every function takes an open connection, so that the caller decides what belongs to one transaction. Nothing here knows a rule: rows go
in and come out. It refuses to keep what it does not understand: times without a zone, documents that somebody changes in place.

Read `database.py` next (why writers take the lock before they read), then `tables_plan.py`.
"""

from fleet_server.store.database import Database

__all__ = ["Database"]
