"""How many failures stop, extend or promote a wave of so many devices: the two rules of evidence as plain counts.

The bound rule asks for proof that the share of failures is within the limit; it suits fleets of 2,000 devices and more. The posterior rule
compares with the project's earlier releases; it suits smaller ones, where no count proves a rate. Both share the stop: evidence against the
limit, or an early warning against a lower one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import msgspec

from edgefleet.errors import ConfigError
from fleet_server.rollout.bounds import proves
from fleet_server.rollout.eprocess import e_value
from fleet_server.rollout.posterior import History, bad_probability

POSTERIOR_BELOW: Final = 2_000  # devices of the selection


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of one rollout, fixed when it is created.

    Attributes:
        kind: `bound` or `posterior`.
        limit: Largest share of failing devices that is good enough.
        abort_at: Evidence against the limit that ends the rollout: wrongly in at most 1 of so many.
        warn_limit: A lower limit whose early evidence pauses; None: no early warning.
        warn_at: Evidence against it that pauses.
        confidence: One-sided, of the bound that promotes.
        promote_below: Posterior probability of a bad release up to which the posterior rule promotes.
        extend_below: The same up to which it takes more devices before it asks a person.
        lean: The bound rule takes more devices while the share is at most this many times the limit; what it is above 1 is divided by the
            number of the growth, as more devices say more.
        extends: Times that a wave may grow.
        history: Of the project, for the posterior rule.
    """

    kind: Literal["bound", "posterior"]
    limit: float = 0.05
    abort_at: float = 20.0
    warn_limit: float | None = 0.03
    warn_at: float = 10.0
    confidence: float = 0.8
    promote_below: float = 0.2
    extend_below: float = 0.5
    lean: float = 1.4
    extends: int = 3
    history: History = msgspec.field(default_factory=History)

    def __post_init__(self) -> None:
        if self.kind not in ("bound", "posterior"):
            raise ConfigError(f"rule {self.kind!r} is neither 'bound' nor 'posterior'")
        for name in ("limit", "confidence", "promote_below", "extend_below"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} is no share above 0 and below 1")
        if self.warn_limit is not None and not 0 < self.warn_limit <= self.limit:
            raise ConfigError(f"warn_limit = {self.warn_limit} must be above 0 and at most the limit, {self.limit}")
        if self.abort_at <= 1 or self.warn_at <= 1 or self.lean < 1 or not 0 <= self.extends <= 10:
            raise ConfigError("abort_at and warn_at must be above 1, lean at least 1, extends 0 to 10")

    def stops(self, failures: int, exposed: int) -> bool:
        """Whether so many failures of all exposed devices, pending ones included, pause or end the rollout at once."""
        if self.warn_limit is not None and e_value(failures, exposed, self.warn_limit) >= self.warn_at:
            return True
        return e_value(failures, exposed, self.limit) >= self.abort_at

    def promotes(self, failures: int, matured: int) -> bool:
        """Whether so few failures of devices that have had their time are enough to go on."""
        if self.kind == "bound":
            return matured > 0 and proves(failures, matured, self.limit, self.confidence)
        return matured > 0 and bad_probability(failures, matured, self.history.prior()) <= self.promote_below

    def extend(self, failures: int, matured: int, grown: int = 0) -> bool:
        """Whether more devices may still bring a promotion to a wave that has grown so often."""
        if self.kind == "bound":
            return failures <= self.leaning(grown) * self.limit * matured
        return bad_probability(failures, matured, self.history.prior()) <= self.extend_below

    def leaning(self, grown: int) -> float:
        """Times the limit up to which a wave grows that has grown so often.

        >>> [round(Rule("bound").leaning(grown), 3) for grown in (0, 1, 2)]
        [1.4, 1.2, 1.133]
        """
        return 1 + (self.lean - 1) / (grown + 1)

    def grown(self, size: int) -> int:
        """Devices of a wave after it grew once: twice as many, or half more in a small fleet."""
        return 2 * size if self.kind == "bound" else size + max(size // 2, 1)


@dataclass(frozen=True)
class Counts:
    """What a rule says of n devices, as numbers of failures.

    Attributes:
        stop: Least number that stops at once.
        promote: Largest number that promotes, -1 when none does.
        extend: Largest number that lets the wave grow, -1 when none does.
    """

    stop: int
    promote: int
    extend: int


@lru_cache(maxsize=65_536)
def counts_at(rule: Rule, devices: int, grown: int = 0) -> Counts:
    """A rule's limits after so many devices, in a wave that has grown so often.

    Found by bisection, as every rule only gets stricter with more failures.

    >>> counts_at(Rule("bound", confidence=0.9), 77)
    Counts(stop=8, promote=1, extend=5)
    """
    return Counts(
        stop=first_true(lambda k: rule.stops(k, devices), devices),
        promote=first_true(lambda k: not rule.promotes(k, devices), devices) - 1,
        extend=first_true(lambda k: not rule.extend(k, devices, grown), devices) - 1,
    )


def first_true(true_from: Callable[[int], bool], devices: int) -> int:
    """Least k of 0 .. devices for which it holds, given that it holds for all above; devices + 1 when it never does."""
    low, high = 0, devices + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if true_from(middle) else (middle + 1, high)
    return low
