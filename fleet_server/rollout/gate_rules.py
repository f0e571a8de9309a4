"""Which comparisons of a rollout are in force, and how much of a device they need to see. Part of the policy."""

from typing import Final

import msgspec

from edgefleet.errors import ConfigError
from fleet_server.rollout.comparisons import COMPARISONS
from fleet_server.rollout.limits import check_seconds, check_whole

_MAX_ROWS: Final = 1_000_000


class GateRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `gates` of a policy.

    Attributes:
        compare: Names of the comparisons in force; empty: none.
        rows: Rows that a device must have answered before and after, of each side of a comparison.
        labelled_rows: The same for the label metric, which needs rows whose truth is known.
        before_s: How far back "before" reaches.
        wait_s: A device that has not told enough so long after it began is left out, and that is said.
        label_wait_s: The same for labels; 0: the gate counts labels as they come and waits for none.
    """

    compare: tuple[str, ...] = tuple(COMPARISONS)
    rows: int = 200
    labelled_rows: int = 50
    before_s: float = 86_400.0
    wait_s: float = 86_400.0
    label_wait_s: float = 0.0

    def __post_init__(self) -> None:
        for name in self.compare:
            if name not in COMPARISONS:
                raise ConfigError(f"gates.compare: {name[:40]!r} is unknown; use some of: {', '.join(COMPARISONS)}")
        if len(set(self.compare)) != len(self.compare):
            raise ConfigError("gates.compare names a comparison twice; name each one once")
        check_whole("gates.rows", self.rows, least=1, most=_MAX_ROWS)
        check_whole("gates.labelled_rows", self.labelled_rows, least=1, most=_MAX_ROWS)
        check_seconds("gates.before_s", self.before_s, least=1.0)
        check_seconds("gates.wait_s", self.wait_s, least=1.0)
        check_seconds("gates.label_wait_s", self.label_wait_s)
