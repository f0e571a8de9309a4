"""The HTTP door of an agent: rows go the agent's way, the version is the release's counter, the page shows the agent's state."""

from device_agent.doors.http.application import Surroundings
from device_agent.doors.http.door import HttpDoor
from device_agent.doors.http.rows import Models
from device_agent.doors.http.settings import HttpSettings
from device_agent.reports import Reports
from device_agent.update.updater import Updater

UNKNOWN_VERSION = "1"


def http_door(models: Models, settings: HttpSettings, updater: Updater, reports: Reports) -> HttpDoor:
    """The door, listening but not answering yet.

    Raises:
        ConfigError: As `HttpDoor`.
    """

    def version() -> str:
        """Counter of the running model's release, as far as the desired state names it."""
        running, payload = models.in_service, updater.director.payload
        for wanted in payload.models.values() if payload is not None and running is not None else ():
            if running is not None and wanted.bundle_digest == running.bundle.digest:
                return str(wanted.release_counter)
        return UNKNOWN_VERSION

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

    return HttpDoor(models, settings, Surroundings(version, about))
