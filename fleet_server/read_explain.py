"""Why a rollout stands where it stands: the answer of GET /rollouts/<id>/explain."""

from dataclasses import dataclass

from fleet_server.read_decisions import Decision
from fleet_server.read_evidence import ChanceView, WaitView
from fleet_server.read_models import GateView, Verdict


@dataclass(frozen=True)
class ExplainView:
    """A rollout without its devices.

    Attributes:
        decides: The gate whose word is the gravest, "" while none has looked.
        waits: Why devices of the open wave have not begun.
        chances: What the plan does to bad releases; empty of a rollout that names its devices.
        runs: That these were drawn with.
        decided: The engine's last action, None before the first.
    """

    rollout_id: str
    state: str
    version: int
    wave: int
    waves: int
    verdict: Verdict
    sentence: str
    missing: str
    decides: str
    gates: list[GateView]
    waits: list[WaitView]
    chances: list[ChanceView]
    runs: int
    decided: Decision | None = None
