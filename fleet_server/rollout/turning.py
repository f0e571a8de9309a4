"""What would change the answer of each gate of the open wave: so many more failures, devices, hours. For people; decides nothing.

Each answer is found by asking the gates themselves about changed sums, never by a second formula that could differ from them.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from edgefleet.spans import span
from fleet_server.rollout.bounds import devices_needed
from fleet_server.rollout.confirming import GATE
from fleet_server.rollout.judgement import (
    DUE_OF_BEGUN,
    DUE_OF_OPENED,
    HEARD_AFTER_DWELL,
    HEARD_SHARE,
    Clock,
    Finding,
    judge,
)
from fleet_server.rollout.posterior import bad_probability
from fleet_server.rollout.rules import Rule
from fleet_server.rollout.tally import Stratum, Tally

_MOST_DEVICES: Final = 100_000


def turns(rule: Rule, tally: Tally, clock: Clock, found: tuple[Finding, ...]) -> dict[str, str]:
    """Gate -> what would change its answer, in one or two sentences; gates of which there is nothing to say are missing.

    Args:
        rule: Of the rollout.
        tally: As judged.
        clock: As judged.
        found: What `judge` said of them.
    """
    words = {finding.gate: finding.word for finding in found}
    said = {
        "stop": _stop(rule, tally, clock, words["stop"]),
        "early warning": _warning(rule, tally, clock, words["early warning"]),
        "sites": _sites(rule, tally, clock, words["sites"]),
        GATE: _confirmation(words.get(GATE, "promote")),
        "time": _time(tally, clock) if words["time"] != "promote" else "",
        "evidence": _evidence(rule, tally, clock, words["evidence"]),
    }
    return {gate: sentence for gate, sentence in said.items() if sentence}


def more_failures_until(rule: Rule, tally: Tally, clock: Clock, gate: str, words: tuple[str, ...]) -> int | None:
    """How many devices that began and have not failed would have to fail until a gate says one of these words; None: not even all of them.

    They are taken to fail in the stratum with the largest share of failures, where they weigh most.
    """
    name = max(tally.strata, key=lambda key: _share(tally.strata[key]), default=None)
    if name is None:
        return None
    worst = tally.strata[name]

    def says(more: int) -> bool:
        changed = replace(tally, strata={**tally.strata, name: Stratum(worst.exposed, worst.failed + more)})
        return next(one.word for one in judge(rule, changed, clock) if one.gate == gate) in words

    left = worst.exposed - worst.failed
    return _least(says, left) if left > 0 and says(left) else None


def _stop(rule: Rule, tally: Tally, clock: Clock, word: str) -> str:
    if word == "abort":
        return "Nothing: what has failed has failed. The policy says who goes back."
    if word == "pause":
        return "The silent devices being heard does not undo it; a person looks at what they share and resumes or aborts."
    more = more_failures_until(rule, tally, clock, "stop", ("abort",))
    if more is None:
        return "Too few devices have begun for any number of failures to abort it; the early warning pauses first." if tally.exposed else ""
    return f"{_failures(more)} of the devices that have begun would abort it."


def _warning(rule: Rule, tally: Tally, clock: Clock, word: str) -> str:
    if rule.warn_limit is None:
        return ""
    if word == "pause":
        return "A person: resume accepts these failures for now, abort ends it."
    more = more_failures_until(rule, tally, clock, "early warning", ("pause",))
    return "" if more is None else f"{_failures(more)} would pause it for a person."


def _sites(rule: Rule, tally: Tally, clock: Clock, word: str) -> str:
    if word == "hold":
        return "The dark site being heard again, or a person."
    if word == "pause":
        return "A person: it is not known whether the release or something else took the sites down."

    def says(more: int) -> bool:
        changed = replace(tally, sites_out=tally.sites_out + more)
        return next(one.word for one in judge(rule, changed, clock) if one.gate == "sites") in ("hold", "pause")

    left = tally.sites_exposed - tally.sites_out
    if left <= 0 or not says(left):
        return ""
    more = _least(says, left)
    return f"{more} more {'site' if more == 1 else 'sites'} going dark would hold or pause it."


def _confirmation(word: str) -> str:
    return (
        "A person: confirm lets the gates go on as they are, resume accepts what failed besides, abort ends it." if word == "pause" else ""
    )


def _time(tally: Tally, clock: Clock) -> str:
    missing = []
    if tally.exposed == 0:
        return "The first device that begins."
    if not clock.opened_all:
        missing.append("the remaining batches being opened")
    if clock.open_s < clock.dwell_s:
        missing.append(f"{span(clock.dwell_s - clock.open_s)} more of dwell")
    due = max(math.ceil(DUE_OF_BEGUN * tally.exposed), math.ceil(DUE_OF_OPENED * tally.opened)) - tally.quiet.due
    if due > 0:
        missing.append(f"the deadline of {due} more {'device' if due == 1 else 'devices'} being over")
    if clock.dwell_s > 0:
        heard = math.ceil(min(HEARD_SHARE * tally.exposed, HEARD_AFTER_DWELL)) - tally.heard_after_dwell
        if heard > 0:
            missing.append(f"{heard} more {'device' if heard == 1 else 'devices'} being heard after the dwell")
    return f"It needs {_listed(missing)}." if missing else ""


def _evidence(rule: Rule, tally: Tally, clock: Clock, word: str) -> str:
    failed = max(tally.failed - clock.accepted.failures, 0)
    n = max(tally.quiet.due - (tally.failed - failed), failed)
    if word == "promote":
        more = more_failures_until(rule, tally, clock, "evidence", ("hold", "extend", "pause"))
        return "" if more is None else f"{_failures(more)} would take the promotion back while the wave is open."
    needed = _devices_for(rule, failed)
    said = ""
    if needed is not None and needed > n:
        more = needed - n
        said = f"{more} more {'device' if more == 1 else 'devices'} without a failure would be enough"
    elif needed is not None:
        said = "Missing devices being heard again would help"
    return f"{said}; {_when(rule, clock)}" if said else f"No number of devices near this one would be enough; {_when(rule, clock)}"


def _devices_for(rule: Rule, failed: int) -> int | None:
    """Least devices with which so many failures promote; None beyond a hundred thousand."""
    if rule.kind == "bound":
        return devices_needed(failed, rule.limit, rule.confidence)

    def enough(n: int) -> bool:
        return n >= max(failed, 1) and bad_probability(failed, n, rule.history.prior()) <= rule.promote_below

    return _least(enough, _MOST_DEVICES) if enough(_MOST_DEVICES) else None


def _when(rule: Rule, clock: Clock) -> str:
    judged_s = clock.judged_s
    asks = "a person is asked"
    if judged_s is None:
        return f"{asks} {span(clock.hold_s)} after the wave has had its time, if there is no answer then."
    asks += f" in {span(clock.hold_s - judged_s)}" if judged_s < clock.hold_s else " now"
    if clock.may_grow and clock.grown < rule.extends:
        left = rule.extends - clock.grown
        times = "once more" if left == 1 else f"{left} times"
        return f"the wave may grow {times} if that can help, not before it held for {span(clock.patience_s)}; {asks}."
    return f"the wave cannot grow any more; {asks}."


def _least(says: Callable[[int], bool], most: int) -> int:
    """Least number from 1 to `most` of which it holds, given that it holds of `most` and of all above the least."""
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if says(middle) else (middle, high)
    return high


def _share(stratum: Stratum) -> float:
    return stratum.failed / stratum.exposed if stratum.exposed else -1.0


def _failures(count: int) -> str:
    return "1 more failure" if count == 1 else f"{count} more failures"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
