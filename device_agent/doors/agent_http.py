"""The HTTP door of an agent: rows go the agent's way, the version is the release's counter, the page shows the agent's state.

The model before the running one stays on the device, and answers who asks for its version: with the network off as well.
"""

from typing import Any

from device_agent.doors.answering import Answering
from device_agent.doors.earlier import EarlierModel
from device_agent.doors.http.application import Surroundings
from device_agent.doors.http.door import HttpDoor
from device_agent.doors.http.rows import Models
from device_agent.doors.http.settings import HttpSettings
from device_agent.reports import Reports
from device_agent.scorer import BatchScores, Score, Scorer
from device_agent.update.updater import Updater

UNKNOWN_VERSION = "1"


class _Unhurried:
    """The agent for a door whose loop must not wait: a row that is due for an explanation gets it from the thread of the reports."""

    def __init__(self, agent: Models, models: Answering, reports: Reports) -> None:
        self._agent, self._models, self._samples = agent, models, reports.samples

    @property
    def in_service(self) -> Scorer | None:
        return self._agent.in_service

    def score(self, row: Any, explain: bool = False, made_for: Scorer | None = None) -> Score:
        if explain:
            return self._agent.score(row, True, made_for)
        score = self._models.score(row, made_for=made_for)
        self._samples.later(score, row)
        return score

    def score_batch(self, rows: Any, made_for: Scorer | None = None) -> BatchScores:
        return self._agent.score_batch(rows, made_for)


def http_door(agent: Models, models: Answering, settings: HttpSettings, updater: Updater, reports: Reports) -> HttpDoor:
    """The door, listening but not answering yet.

    Args:
        agent: Takes the rows.
        models: The models that answer them.
        settings: Where and for whom.
        updater: Knows releases, and what lies on the disk.
        reports: Knows the agent's state.

    Raises:
        ConfigError: As `HttpDoor`.
    """
    store, asked = updater.store, _Unhurried(agent, models, reports)

    def version() -> str:
        """Counter of the running model's release, as far as the desired state names it, or it was noted when it came."""
        running = models.in_service
        if running is None:
            return UNKNOWN_VERSION
        named = updater.director.release_of(running.bundle.digest)
        return str(named or store.release_of(running.bundle.digest) or UNKNOWN_VERSION)

    def opened(digest: str) -> Scorer:
        bundle, variant = store.open_slot(digest)
        return Scorer.open(bundle, variant.name)

    earlier = EarlierModel(asked, models, lambda: store.pointer("previous"), opened, lambda digest: str(store.release_of(digest) or ""))

    def about() -> dict[str, str]:
        health = reports.health()
        facts = {
            "Device": health.device_id,
            "Project": health.project,
            "Fleet": "connected" if health.connected else "not connected; scoring goes on",
            "State": health.state,
            "Reason": health.reason,
            "Rows, all doors": f"{health.rows:,} answered, {health.rejected:,} rejected, {health.unanswered:,} unanswered",
            "Telemetry waiting": f"{health.spooled:,} records, {health.dropped:,} dropped",
            "Memory": f"{health.rss_bytes / 1e6:.0f} MB",
            "Trouble": "; ".join([*health.stopped_threads, health.storage_problem]).strip("; "),
        }
        return {name: value for name, value in facts.items() if value}

    return HttpDoor(asked, settings, Surroundings(version, about, earlier))
