"""Tables of a policy: the trial on a device, and the limits by which evidence is judged."""

from typing import Final, Literal

import msgspec

from edgefleet.desired import TrialPolicy
from edgefleet.errors import ConfigError
from fleet_server.rollout.limits import check_above, check_seconds, check_share, check_whole
from fleet_server.rollout.posterior import History
from fleet_server.rollout.rules import Rule

# A small fleet has fewer devices to grow into.
EXTENDS: Final = {"bound": 4, "posterior": 2}
# Small batches are many looks: by the bound the early warning is wrong in at most 1 of 20 releases at its limit, in small fleets in 10.
WARN_AT: Final = {"bound": 20.0, "posterior": 10.0}


class TrialRules(TrialPolicy, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The trial on a device, and what it means for a device whose inputs drift.

    Attributes:
        drifted_devices: `compare` = like all others; `skip` = a device with an open drift alarm is tried without the agreement
            comparison, because its running model is the one that is known to be wrong.
    """

    drifted_devices: Literal["compare", "skip"] = "compare"

    def __post_init__(self) -> None:
        check_seconds("trial.soak_s", self.soak_s)
        check_seconds("trial.timeout_s", self.timeout_s, least=1.0)
        check_whole("trial.soak_rows", self.soak_rows)
        check_whole("trial.agreement_rows", self.agreement_rows, least=1)
        check_whole("trial.attempts", self.attempts, least=1, most=100)
        if self.timeout_s <= self.soak_s:
            raise ConfigError(f"trial.timeout_s = {self.timeout_s:g} must be more than trial.soak_s = {self.soak_s:g}")
        if self.min_agreement is None and not self.agreement_reason:
            raise ConfigError("trial.min_agreement is off: say why in trial.agreement_reason")
        if self.min_agreement is not None and not 0 < self.min_agreement <= 1:
            raise ConfigError(f"trial.min_agreement = {self.min_agreement:g} is no share above 0 and up to 1")


class RuleLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of the evidence; what is not said is the measured default of `Rule`.

    Attributes:
        limit: Largest share of failing devices that is good enough.
        abort_at: Evidence against the limit that ends the rollout: wrongly in at most 1 of so many.
        warn_limit: A lower limit whose early evidence pauses; None: no early warning.
        warn_at: Evidence against it that pauses; None: 20 by the bound, 10 by the posterior.
        confidence: One-sided, of the bound that promotes.
        promote_below: Posterior probability of a bad release up to which the posterior rule promotes.
        extend_below: The same up to which it takes more devices before it asks a person.
        lean: The bound rule takes more devices while the share is at most this many times the limit.
        extends: Times that a wave may grow; None: 4 by the bound, 2 by the posterior.
    """

    limit: float = 0.05
    abort_at: float = 20.0
    warn_limit: float | None = 0.03
    warn_at: float | None = None
    confidence: float = 0.8
    promote_below: float = 0.2
    extend_below: float = 0.5
    lean: float = 1.4
    extends: int | None = None

    def __post_init__(self) -> None:
        for name in ("limit", "confidence", "promote_below", "extend_below"):
            check_share(f"rule.{name}", getattr(self, name))
        if self.promote_below > self.extend_below:
            raise ConfigError(f"rule.promote_below = {self.promote_below:g} is above rule.extend_below = {self.extend_below:g}; lower it")
        if self.warn_limit is not None and not 0 < self.warn_limit <= self.limit:
            remedy = "choose it above 0 and at most the limit, or give the limit you want with it"
            raise ConfigError(f"rule.warn_limit = {self.warn_limit:g} with rule.limit = {self.limit:g}: {remedy}")
        check_above("rule.abort_at", self.abort_at, 1.0, 1e9)
        if self.warn_at is not None:
            check_above("rule.warn_at", self.warn_at, 1.0, 1e9)
        if not 1 <= self.lean <= 10:
            raise ConfigError(f"rule.lean = {self.lean:g} is outside 1 to 10")
        if self.extends is not None:
            check_whole("rule.extends", self.extends, most=10)

    def rule(self, kind: Literal["bound", "posterior"], history: History) -> Rule:
        """The rule of one rollout.

        Args:
            kind: Which of the two.
            history: Of the project, at the time the rollout is created.
        """
        unsaid = {"extends": EXTENDS[kind], "warn_at": WARN_AT[kind]}
        values = msgspec.structs.asdict(self) | {name: value for name, value in unsaid.items() if getattr(self, name) is None}
        return Rule(kind, history=history, **values)
