"""Where a person is asked: after the first wave, at each failure. In a fleet so small that no count proves a rate, she is the proof.

To confirm is to have looked: nothing that was seen is taken out of the evidence, and every gate is asked again afterwards. Whoever
accepts a failure resumes instead.
"""

from typing import Final, Literal

from fleet_server.rollout.findings import NOBODY, Asks, Clock, Confirmed, Finding
from fleet_server.rollout.tally import Tally

Confirm = Literal["never", "first-wave", "failure", "first-wave-and-failure"]
GATE: Final = "confirmation"
_LIMIT: Final = "0 that nobody looked at"
# Devices of the selection below which a person is asked, where a policy leaves out both `waves` and `confirm`.
BY_SIZE: Final[tuple[tuple[int, Confirm], ...]] = ((10, "first-wave-and-failure"), (30, "failure"))


def asks_at(confirm: Confirm, wave: int, waves: int, confirmed: Confirmed) -> Asks:
    """What is asked at a wave; a first wave that is everybody opens nothing, so that nothing is left to confirm."""
    if confirm == "never":
        return NOBODY
    return Asks(
        failure=confirm in ("failure", "first-wave-and-failure"),
        promotion=confirm in ("first-wave", "first-wave-and-failure") and confirmed.waves < wave == 1 < waves,
        wave=wave,
        confirmed=confirmed,
    )


def asked_about(tally: Tally, asks: Asks, clock: Clock, others: tuple[Finding, ...]) -> Literal["failure", "promotion", "nothing"]:
    """What a person must look at before it goes on.

    Args:
        tally: As judged.
        asks: Of the open wave.
        clock: Says what was accepted: that was looked at too.
        others: Every other gate; only a wave that all of them promote is put before her.
    """
    if asks.failure and tally.failed > _looked_at(asks, clock):
        return "failure"
    if asks.promotion and all(finding.word == "promote" for finding in others if finding.gate != GATE):
        return "promotion"
    return "nothing"


def confirmation_gate(tally: Tally, asks: Asks, clock: Clock, others: tuple[Finding, ...]) -> Finding:
    """Whether a person has to look before it goes on, see `asked_about`."""
    looked_at, n = _looked_at(asks, clock), tally.exposed
    left = str(max(tally.failed - looked_at, 0))
    about = asked_about(tally, asks, clock, others)
    if about == "failure":
        before = f", {looked_at} of them looked at before" if looked_at else ""
        sentence = (
            f"Pause: {tally.failed} of {n} devices failed{before}; the policy asks a person at each failure: an operator looks at it, then "
            "confirms (it stays in the evidence), resumes (it is accepted) or aborts."
        )
        return Finding(GATE, "pause", left, _LIMIT, n, sentence)
    if about == "promotion":
        sentence = (
            f"Pause: wave {asks.wave} has shown what was asked of it, {tally.failed} of {n} devices failed; the policy asks a person "
            f"before wave {asks.wave + 1} opens: an operator looks at the devices, then confirms or aborts."
        )
        return Finding(GATE, "pause", left, _LIMIT, n, sentence)
    return Finding(GATE, "promote", left, _LIMIT, n, _calm(asks, looked_at))


def confirmed_then(about: Literal["failure", "promotion"], tally: Tally, asks: Asks) -> Confirmed:
    """What will have been looked at when the person has confirmed what she is asked about."""
    before = asks.confirmed
    if about == "failure":
        return Confirmed(failures=tally.failed, waves=before.waves)
    return Confirmed(failures=before.failures, waves=asks.wave)


def said_of(confirm: Confirm, waves: int) -> str:
    """The sentence of a plan about the person it asks, empty when it asks nobody."""
    first, each = "first-wave" in confirm and waves > 1, "failure" in confirm
    if not (first or each):
        return ""
    when = " and ".join(part for part in ("before wave 2 opens" if first else "", "at each failure" if each else "") if part)
    return (
        f"A person is asked {when} (confirm = '{confirm}'), and nothing further begins until an operator has confirmed. Times and chances "
        "are those of a person who confirms at once."
    )


def _looked_at(asks: Asks, clock: Clock) -> int:
    return max(asks.confirmed.failures, clock.accepted.failures)


def _calm(asks: Asks, looked_at: int) -> str:
    waits = f"A person is asked before wave {asks.wave + 1} opens." if asks.promotion else ""
    if asks.failure:
        known = f"A person looked at {looked_at}; the next failure is put before her." if looked_at else "A failure is put before a person."
        return f"{waits} {known}".strip()
    if waits:
        return waits
    return "A person confirmed the first wave." if asks.confirmed.waves else "The policy asks nobody to confirm."
