"""What happened in one run of the machine, counted."""

from collections import Counter

from tests.properties.rollout_fleet.stage import Stage


def figures(stage: Stage) -> Counter[str]:
    """What happened in one run, so that a test can say that it was worth it."""
    found = Counter(f"ended {one.state.value}" for one in stage.seen.rollouts.values())
    found["runs"] = 1
    found["deaths"] = stage.deaths
    found["promotions"] = sum(len(one.promoted_at) for one in stage.seen.rollouts.values())
    found["failures"] = sum(row.failed_at is not None for row in stage.seen.members.values())
    found["removed"] = sum(entry.action == "remove" for entry in stage.seen.entries)
    found["lifted"] = sum(entry.action == "unquarantine" for entry in stage.seen.entries)
    found["published"] = len(stage.broker.sent)
    return found
