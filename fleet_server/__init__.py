"""The fleet server: releases, rollouts in waves, what devices report, drift, the operators' page.

One process runs it all (`serve.py`); the database is the truth and the broker a cache of it. Rules are pure and live apart
(`rollout/`, `drift/`); views parse and call a use-case (`usecases.py`) or a question (`queries/`); what follows from an action is saved
with it and published after. It refuses to hold a key that signs models, to listen beyond this machine without TLS in front, and to
promote a wave on the absence of bad news.

Read `app.py` next (what is built), then `usecases.py` (what people do), then `scheduler/steering.py` (what happens by itself).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fleet_server.app import create_app
    from fleet_server.config import ServerConfig

__all__ = ["ServerConfig", "create_app"]


def __getattr__(name: str) -> Any:
    # Opening the broker for a demo must not import Flask and SQLAlchemy.
    if name == "create_app":
        from fleet_server.app import create_app

        return create_app
    if name == "ServerConfig":
        from fleet_server.config import ServerConfig

        return ServerConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
