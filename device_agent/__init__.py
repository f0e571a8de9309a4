"""The part of edgefleet that runs on a device: it scores rows, counts them, explains answers, and keeps the model up to date.

It refuses to need more than numpy and one runtime to score, to load bytes that do not match their digest, to let a bad row stop it, and to
send payload away. Importing the package imports no runtime and no network code; that happens when `Scorer` or `Agent` is first used.
Read `scorer.py` next: door -> checks -> scorer -> runtime -> ring -> windows -> spool -> connection, and no step calls back.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from device_agent.agent import Agent
    from device_agent.scorer import Scorer

__all__ = ["Agent", "Scorer"]


def __getattr__(name: str) -> Any:
    if name == "Scorer":
        from device_agent.scorer import Scorer

        return Scorer
    if name == "Agent":
        from device_agent.agent import Agent

        return Agent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
