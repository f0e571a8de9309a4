"""What is foretold, as the API shows it."""

from collections.abc import Sequence

from fleet_server.read_evidence import ChanceView, NeedView
from fleet_server.rollout.comparison_needs import needs
from fleet_server.rollout.foresight import Chance
from fleet_server.rollout.gate_rules import GateRules


def chance_view(one: Chance) -> ChanceView:
    """One share of failing devices; where nothing is foretold of late failures or of dark devices, they cost what early failures do."""
    late, dark = one.late or one.at_once, one.dark or one.at_once
    return ChanceView(
        failing=one.failing,
        stopped_in_first=one.at_once.stopped_in_first,
        stopped=one.at_once.stopped,
        harmed_median=one.at_once.harmed_median,
        harmed_p95=one.at_once.harmed_p95,
        late_stopped=late.stopped,
        late_harmed_median=late.harmed_median,
        late_harmed_p95=late.harmed_p95,
        dark_stopped_in_first=dark.stopped_in_first,
        dark_stopped=dark.stopped,
        dark_harmed_mean=dark.harmed_mean,
        dark_harmed_median=dark.harmed_median,
        dark_harmed_p95=dark.harmed_p95,
    )


def need_views(rules: GateRules, sizes: Sequence[int], devices: int) -> list[NeedView]:
    """What the comparisons in force need; `sizes` and `devices` as in `needs`."""
    return [NeedView(one.gate, one.change, one.tolerance, one.devices, one.wave) for one in needs(rules, sizes, devices)]
