"""The end of a training: run.json, the report beside it, and the mirror in MLflow where the project asks for one.

Nothing here may lose the run: a report that cannot be made or a server that is away is a remark in the record, never an error.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from edgefleet.errors import EdgefleetError
from trainer.project import Project
from trainer.report.run_report import write_run_report
from trainer.runs import Run

REPORT_NAME: Final = "report.html"
LOG = logging.getLogger(__name__)


def publish(project: Project, run: Run, status: str, reason: str) -> None:
    """Finish the run's record, then write the report and mirror both.

    Args:
        project: The settings.
        run: The run.
        status: packaged | refused | failed.
        reason: Why not packaged, or "".
    """
    run.record.setdefault("remarks", [])
    run.finish(status, reason)
    try:
        write_run_report(report_record(run.record), run.folder / REPORT_NAME)
    except (EdgefleetError, OSError, msgspec.ValidationError) as err:
        run.record["remarks"].append(f"the report could not be written: {err}")
        LOG.warning("%s", run.record["remarks"][-1])
    if project.tracking.mlflow:
        from trainer.tracking import mirror

        remark = mirror(run.folder, run.record, project.tracking, project.name)
        run.record["remarks"] += [remark] if remark else []
    run.finish(status, reason)


def report_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the HTML pages read, from what run.json holds; a run that ended early has little of it, and the pages say so."""
    told: dict[str, Any] = {"id": str(record["id"]), "verdict": str(record.get("status")), "reason": str(record.get("reason") or "")}
    told |= {"seconds": record.get("total_seconds"), "reproduce": str(record.get("reproduce") or "")}
    beside = {name: record[name] for name in ("settings", "data_digest", "environment", "git") if record.get(name)}
    return {**(record.get("report") or {}), **beside, **told}
