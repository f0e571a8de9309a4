"""How many devices that went dark stop, extend or promote a wave of so many, for the planner.

Asked of the engine's own gates, never computed beside them: n devices that all had their dwell, of which k were never heard again while
every control was. Nights, outages and devices that come and go are not in it (`edgefleet simulate` has them).
"""

from functools import lru_cache
from typing import Final

import numpy as np

from fleet_server.rollout.findings import Clock, Finding, Word
from fleet_server.rollout.judgement import judge
from fleet_server.rollout.rules import Counts, Rule, first_true
from fleet_server.rollout.silence import Silence
from fleet_server.rollout.tally import Stratum, Tally

_DWELL_S: Final = 86_400.0
_HELD: Final[tuple[Word, ...]] = ("hold", "pause")


@lru_cache(maxsize=65_536)
def silent_counts_at(rule: Rule, devices: int, grown: int = 0) -> Counts:
    """A rule's limits for dark devices of so many, in a wave that has grown so often.

    Args:
        rule: Of the rollout.
        devices: That began, at least 1.
        grown: Times.

    >>> silent_counts_at(Rule("bound"), 92)
    Counts(stop=14, promote=2, extend=4)
    """
    return Counts(
        stop=first_true(lambda k: _says(rule, devices, k, grown, "stop") in ("abort", "pause"), devices),
        promote=first_true(lambda k: _says(rule, devices, k, grown, "evidence") != "promote", devices) - 1,
        extend=first_true(lambda k: _says(rule, devices, k, grown, "evidence") in _HELD, devices) - 1,
    )


def _says(rule: Rule, devices: int, dark: int, grown: int, gate: str) -> Word:
    return next(one for one in _findings(rule, devices, dark, grown) if one.gate == gate).word


def _findings(rule: Rule, devices: int, dark: int, grown: int) -> tuple[Finding, ...]:
    quiet = Silence(
        exposed=devices,
        silent=dark,
        silent_baseline=0.0,
        due=devices,
        missing=dark,
        missing_baseline=0.0,
        # Dark devices are spread over the sites as all are: none of them weighs more.
        sites=np.array([(dark, devices)], np.int64),
    )
    tally = Tally(
        opened=devices,
        strata={"": Stratum(devices, 0)},
        quiet=quiet,
        dwelled=devices,
        heard_after_dwell=devices - dark,
    )
    clock = Clock(opened_all=True, open_s=_DWELL_S, dwell_s=_DWELL_S, judged_s=0.0, patience_s=0.0, hold_s=_DWELL_S, grown=grown)
    return judge(rule, tally, clock)
