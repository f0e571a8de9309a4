"""Runs mirrored to an MLflow server; the run folder stays the truth. Registering packages there is `edgefleet.registry`.

Nothing here may lose a run: every trouble with the server is one sentence that the caller records, and the folder is complete without it.
Uses mlflow-skinny's client only. Telemetry is switched off before the import. A password goes into MLflow's own environment variables,
MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, never into project.toml.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgefleet.digests import canonical_json
from edgefleet.errors import ConfigError, MissingPartError, TransportError
from edgefleet.files import write_durably
from edgefleet.registry import ARTIFACT_FOLDER, NOTE_NAME, check_url, experiment_id, explained, open_client
from trainer.runs import read_events
from trainer.settings import Tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow's own limits: a longer value is refused by the server, and with it the whole batch.
_MAX_METRICS: Final = 1000
_MAX_PARAMS: Final = 100
_MAX_PARAM_CHARACTERS: Final = 6000
_MAX_KEY_CHARACTERS: Final = 250


def mirror(run_folder: Path, record: Mapping[str, Any], settings: Tracking, project_name: str) -> str | None:
    """Copy a finished run to the MLflow server: parameters, metrics, every epoch and trial, the folder, tags.

    Args:
        run_folder: The run's folder, with run.json and what was made.
        record: What run.json holds.
        settings: Where to; without a URL nothing happens.
        project_name: Name of the experiment when the settings name none.

    Returns:
        None, or one sentence why there is no copy or only part of one.
    """
    if not settings.mlflow:
        return None
    try:
        client = open_client(settings.mlflow)
        with explained(settings.mlflow, f"the run is complete in {run_folder}"):
            experiment = experiment_id(client, settings.experiment or project_name)
            run_id = client.create_run(experiment, run_name=str(record.get("id", run_folder.name)), tags=_tags(record)).info.run_id
            # Written first: a copy that broke off half-way is still to be found.
            write_durably(run_folder / NOTE_NAME, canonical_json({"url": settings.mlflow, "experiment_id": experiment, "run_id": run_id}))
            _log(client, run_id, record, read_events(run_folder))
            client.log_artifacts(run_id, str(run_folder), ARTIFACT_FOLDER)
            client.set_terminated(run_id, "FAILED" if record.get("status") == "failed" else "FINISHED")
    except (ConfigError, MissingPartError, TransportError) as err:
        return str(err)
    return None


def check_tracking(settings: Tracking) -> None:
    """Check before a training what can be checked without the server.

    Raises:
        ConfigError: The URL is none of an MLflow server, or holds a password.
    """
    if settings.mlflow:
        check_url(settings.mlflow, "tracking.mlflow")


def _tags(record: Mapping[str, Any]) -> dict[str, str]:
    git = record.get("git") or {}
    tags = {
        "edgefleet.run": record.get("id"),
        "edgefleet.project": record.get("project"),
        "edgefleet.status": record.get("status"),
        "edgefleet.winner": record.get("winner"),
        "edgefleet.package_digest": record.get("package_digest"),
        "edgefleet.data_digest": record.get("data_digest"),
        "edgefleet.git_dirty": git.get("dirty"),
        "mlflow.source.git.commit": git.get("commit"),
        "mlflow.note.content": record.get("question"),
    }
    return {name: str(value) for name, value in tags.items() if value is not None}


def _log(client: "MlflowClient", run_id: str, record: Mapping[str, Any], events: list[dict[str, Any]]) -> None:
    from mlflow.entities import Metric, Param

    at_ms = _milliseconds(record.get("started_at"))
    params = [Param(key, value) for key, value in parameters(record).items()]
    metrics = [Metric(key, value, at_ms, 0) for key, value in final_metrics(record).items()]
    metrics += [Metric(key, value, _milliseconds(at), step) for key, value, at, step in step_metrics(events)]
    for batch in _batches(params, _MAX_PARAMS):
        client.log_batch(run_id, params=batch)
    for batch in _batches(metrics, _MAX_METRICS):
        client.log_batch(run_id, metrics=batch)


def parameters(record: Mapping[str, Any]) -> dict[str, str]:
    """Settings and environment of a run, flat, as MLflow takes them."""
    wanted = {name: record[name] for name in ("settings", "seed", "data_digest", "project_digest", "environment", "rows") if name in record}
    return {_key(name): _text(value)[:_MAX_PARAM_CHARACTERS] for name, value in _flat(wanted)}


def final_metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """What a run's record says it measured: by split and by candidate, with intervals; `edgefleet runs compare` shows the same."""
    report = record.get("report") or {}
    found: dict[str, float] = {}
    for split, metrics in {"test": record.get("test"), **(report.get("metrics") or {})}.items():
        for name, measure in (metrics or {}).items() if isinstance(metrics, Mapping) else ():
            _measured(found, f"{split}.{name}", measure)
    for candidate in report.get("candidates") or []:
        _measured(found, f"candidate.{candidate.get('name')}.{report.get('metric') or 'metric'}", candidate)
    found |= {f"seconds.{name}": float(value) for name, value in (record.get("seconds") or {}).items()}
    return {_key(name): value for name, value in found.items()}


def step_metrics(events: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, float, Any, int]]:
    """Metric name, value, time and step of every epoch and every trial."""
    for event in events:
        kind, candidate = event.get("kind"), event.get("candidate", "model")
        if kind not in {"epoch", "trial"}:
            continue
        step = event.get("number" if kind == "trial" else "step")
        values = {"value": event.get("value")} if kind == "trial" else {k: v for k, v in event.items() if k not in {"step", "at"}}
        for name, value in values.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and isinstance(step, int):
                yield _key(f"{kind}.{candidate}.{name}"), float(value), event.get("at"), step


def _measured(found: dict[str, float], name: str, measure: Any) -> None:
    for part, suffix in (("value", ""), ("low", ".low"), ("high", ".high"), ("n", ".n")):
        value = measure.get(part) if isinstance(measure, Mapping) else None
        if isinstance(value, int | float):
            found[name + suffix] = float(value)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from _flat(below, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _key(name: str) -> str:
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)[:_MAX_KEY_CHARACTERS]


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _milliseconds(at: Any) -> int:
    return int(datetime.fromisoformat(at).timestamp() * 1000) if isinstance(at, str) else 0
