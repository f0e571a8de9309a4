"""Runs revisions on the connection that `fleet_server.store.migrate` hands over."""

from alembic import context

from fleet_server.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"], target_metadata=METADATA, transactional_ddl=False, render_as_batch=True
)
context.run_migrations()
