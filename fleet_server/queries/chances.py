"""What is foretold, as the API shows it."""

from fleet_server.read_evidence import ChanceView
from fleet_server.rollout.foresight import Chance


def chance_view(one: Chance) -> ChanceView:
    """One share of failing devices; where nothing is foretold of late failures, they cost what early ones do."""
    late = one.late or one.at_once
    return ChanceView(
        failing=one.failing,
        stopped_in_first=one.at_once.stopped_in_first,
        stopped=one.at_once.stopped,
        harmed_median=one.at_once.harmed_median,
        harmed_p95=one.at_once.harmed_p95,
        late_stopped=late.stopped,
        late_harmed_median=late.harmed_median,
        late_harmed_p95=late.harmed_p95,
    )
