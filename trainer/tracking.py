"""Runs mirrored to an MLflow server, and packages registered there; the run folder stays the truth.

Nothing here may lose a run: every trouble with the server is one sentence that the caller records, and the folder is complete without it.
Uses mlflow-skinny's client only. Telemetry is switched off before the import. A password goes into MLflow's own environment variables,
MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, never into project.toml.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from edgefleet.digests import canonical_json, sha256_file
from edgefleet.errors import ConfigError, InputError
from edgefleet.files import write_durably
from trainer.runs import read_events
from trainer.settings import Tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION: Final = "champion"
NOTE_NAME: Final = "mlflow.json"  # in a mirrored run folder: where its copy is
ARTIFACT_FOLDER: Final = "run"
INSTALL: Final = "pip install 'edgefleet[tracking]'"
# MLflow's own limits: a longer value is refused by the server, and with it the whole batch.
_MAX_METRICS: Final = 1000
_MAX_PARAMS: Final = 100
_MAX_PARAM_CHARACTERS: Final = 6000
_MAX_KEY_CHARACTERS: Final = 250
_ENVIRONMENT: Final = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
# Seven tries with growing pauses are MLflow's default: a server that is away would hold the training for minutes.
_PATIENCE: Final = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}


class _Unmirrored(Exception):
    """Why something could not be mirrored, in one sentence."""


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
        client = _client(settings.mlflow)
        with _Explained(settings.mlflow, f"the run is complete in {run_folder}"):
            experiment = _experiment(client, settings.experiment or project_name)
            run_id = client.create_run(experiment, run_name=str(record.get("id", run_folder.name)), tags=_tags(record)).info.run_id
            # Written first: a copy that broke off half-way is still to be found.
            write_durably(run_folder / NOTE_NAME, canonical_json({"url": settings.mlflow, "experiment_id": experiment, "run_id": run_id}))
            _log(client, run_id, record, read_events(run_folder))
            client.log_artifacts(run_id, str(run_folder), ARTIFACT_FOLDER)
            client.set_terminated(run_id, "FAILED" if record.get("status") == "failed" else "FINISHED")
    except _Unmirrored as err:
        return str(err)
    return None


def register(package_folder: Path, name: str, settings: Tracking, alias: str = CHAMPION) -> str | None:
    """Register a model package or bundle as a version of model `name`, and let `alias` point to it.

    The version is found again by the package's digest: a promotion makes a version once, a rollback only moves the alias back.

    Args:
        package_folder: Folder with package.json or manifest.json.
        name: Name of the registered model; made when missing.
        settings: Where to; without a URL nothing happens.
        alias: What the promoted version is called.

    Returns:
        None, or one sentence why it is not registered.

    Raises:
        InputError: The folder holds neither a package nor a bundle.
    """
    if not settings.mlflow:
        return None
    index = next((path for path in (package_folder / "package.json", package_folder / "manifest.json") if path.is_file()), None)
    if index is None:
        raise InputError(f"{package_folder}: neither package.json nor manifest.json is there; name a model package or a bundle")
    try:
        client = _client(settings.mlflow)
        with _Explained(settings.mlflow, f"{package_folder} is not registered; register it again when the server is back"):
            version = _version(client, package_folder, name, sha256_file(index), settings)
            client.set_registered_model_alias(name, alias, version)
    except _Unmirrored as err:
        return str(err)
    return None


def check_tracking(settings: Tracking) -> None:
    """Check before a training what can be checked without the server.

    Raises:
        ConfigError: The URL is none of an MLflow server, or holds a password.
    """
    if not settings.mlflow:
        return
    parts = urlsplit(settings.mlflow)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"tracking.mlflow = {_shown(settings.mlflow)!r} is no server's address: write http://HOST:PORT or https://HOST")
    if parts.username or parts.password:
        raise ConfigError(
            f"tracking.mlflow = {_shown(settings.mlflow)!r} holds a name or a password: "
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment instead"
        )


class _Explained:
    """Turns what the client raises into one sentence; errors of our own pass."""

    def __init__(self, url: str, remedy: str) -> None:
        self._url, self._remedy = url, remedy

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, _: object) -> None:
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        if isinstance(err, MlflowException | RequestException | OSError):
            reason = " ".join(str(err).split())[:300]
            raise _Unmirrored(f"MLflow at {_shown(self._url)} did not take it all ({reason}); {self._remedy}") from err


def _client(url: str) -> "MlflowClient":
    try:
        check_tracking(Tracking(mlflow=url))
    except ConfigError as err:
        raise _Unmirrored(str(err)) from err
    os.environ.update(_ENVIRONMENT)
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
    except ModuleNotFoundError as err:
        raise _Unmirrored(f"tracking.mlflow is set and {err.name} is not installed, so nothing was mirrored: {INSTALL}") from err
    return MlflowClient(tracking_uri=url, registry_uri=url)


def _experiment(client: "MlflowClient", name: str) -> str:
    found = client.get_experiment_by_name(name)
    return str(client.create_experiment(name) if found is None else found.experiment_id)


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


def _version(client: "MlflowClient", folder: Path, name: str, digest: str, settings: Tracking) -> str:
    """The version that holds this digest, made when there is none."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as err:
        if err.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    for version in client.search_model_versions(f"name='{name}'"):
        if version.tags.get("edgefleet.digest") == digest:
            return str(version.version)
    run_id, path = _mirrored(folder, settings.mlflow) or _uploaded(client, folder, name, settings)
    tags = {"edgefleet.digest": digest}
    return str(client.create_model_version(name, f"runs:/{run_id}/{path}", run_id=run_id, tags=tags, await_creation_for=0).version)


def _mirrored(folder: Path, url: str) -> tuple[str, str] | None:
    """Run and artefact path of a package that lies in a run folder already mirrored to the same server."""
    for above in list(folder.resolve().parents)[:2]:
        try:
            note = json.loads((above / NOTE_NAME).read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(note, dict) and note.get("url") == url and isinstance(note.get("run_id"), str):
            return note["run_id"], f"{ARTIFACT_FOLDER}/{folder.resolve().relative_to(above).as_posix()}"
    return None


def _uploaded(client: "MlflowClient", folder: Path, name: str, settings: Tracking) -> tuple[str, str]:
    """Upload a package whose run is not mirrored, in a run of its own."""
    run_id = client.create_run(_experiment(client, settings.experiment or name), run_name=f"register {folder.name}").info.run_id
    client.log_artifacts(run_id, str(folder), "package")
    client.set_terminated(run_id)
    return run_id, "package"


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


def _shown(url: str) -> str:
    """The address without name and password."""
    host = urlsplit(url).netloc.rpartition("@")
    return url.replace(f"{host[0]}@", "") if host[1] else url
