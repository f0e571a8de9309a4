"""Versions in an MLflow server's model registry: the shared half of the trainer's mirror, `edgefleet export` and the fleet server.

A version is found again by the digest of what it holds, so that a promotion makes it once and going back to it only moves the alias.
Uses mlflow-skinny's client only, imported when it is needed, its telemetry switched off before. A password goes into MLflow's own
environment variables, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, never into a URL.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from edgefleet.digests import sha256_file
from edgefleet.errors import ConfigError, InputError, MissingPartError, TransportError

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION: Final = "champion"
NOTE_NAME: Final = "mlflow.json"  # in a mirrored run folder: where its copy is
ARTIFACT_FOLDER: Final = "run"
AGAIN: Final = "register it again when the server is back"
INSTALL: Final = "pip install 'edgefleet[tracking]'"
_DIGEST_TAG: Final = "edgefleet.digest"
_MAX_REASON: Final = 300
_ENVIRONMENT: Final = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
# Seven tries with growing pauses are MLflow's default: a server that is away would hold the caller for minutes.
_PATIENCE: Final = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}


def register(folder: Path, name: str, url: str, alias: str = CHAMPION, *, remedy: str = AGAIN) -> str:
    """Register a model package or bundle as a version of model `name`, and let `alias` point to it.

    Args:
        folder: Folder with package.json or manifest.json.
        name: Name of the registered model; made when missing.
        url: The MLflow server.
        alias: What the promoted version is called.
        remedy: What to do when the server is away, the end of the sentence.

    Returns:
        The version's number, as MLflow writes it.

    Raises:
        InputError: The folder holds neither a package nor a bundle.
        ConfigError: The URL is none of an MLflow server, or holds a password.
        MissingPartError: mlflow-skinny is not installed.
        TransportError: The server is away or refuses.
    """
    index = next((path for path in (folder / "package.json", folder / "manifest.json") if path.is_file()), None)
    if index is None:
        raise InputError(f"{folder}: neither package.json nor manifest.json is there; name a model package or a bundle")
    digest = sha256_file(index)
    client = open_client(url)
    with explained(url, f"{folder.name} is not registered; {remedy}"):
        version = _known_version(client, name, digest)
        if version is None:
            run_id, path = _mirrored(folder, url) or _uploaded(client, folder, name, digest)
            made = client.create_model_version(
                name, f"runs:/{run_id}/{path}", run_id=run_id, tags={_DIGEST_TAG: digest}, await_creation_for=0
            )
            version = str(made.version)
        client.set_registered_model_alias(name, alias, version)
        return version


def check_url(url: str, setting: str) -> None:
    """Check what can be checked without the server.

    Args:
        url: The address.
        setting: Where it was set, for the message.

    Raises:
        ConfigError: It is no http address of a server, or holds a name or a password.
    """
    try:
        parts = urlsplit(url)
        known = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        raise ConfigError(f"{setting} = {url[:80]!r} is no server's address: write http://HOST:PORT or https://HOST") from None
    if not known:
        raise ConfigError(f"{setting} = {_shown(url)!r} is no server's address: write http://HOST:PORT or https://HOST")
    if parts.username or parts.password:
        raise ConfigError(
            f"{setting} = {_shown(url)!r} holds a name or a password: "
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment instead"
        )


def open_client(url: str) -> "MlflowClient":
    """A client of the MLflow server at `url`; the server itself is not asked yet.

    Raises:
        ConfigError: The URL is none of an MLflow server, or holds a password.
        MissingPartError: mlflow-skinny is not installed.
    """
    check_url(url, "the MLflow server")
    os.environ.update(_ENVIRONMENT)
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
    except ModuleNotFoundError as err:
        raise MissingPartError(f"an MLflow server is named and {err.name} is not installed, so nothing goes there: {INSTALL}") from err
    return MlflowClient(tracking_uri=url, registry_uri=url)


def check_installed() -> None:
    """Whether mlflow-skinny is there, without the seconds that its import takes.

    Raises:
        MissingPartError: It is not.
    """
    from importlib.util import find_spec

    if find_spec("mlflow") is None:
        raise MissingPartError(f"an MLflow server is named and mlflow is not installed, so nothing can go there: {INSTALL}")


@contextlib.contextmanager
def explained(url: str, remedy: str) -> Iterator[None]:
    """Turns what the client raises into one sentence, a TransportError; the same trouble gives the same sentence."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    try:
        yield
    except (MlflowException, RequestException, OSError) as err:
        raise TransportError(f"MLflow at {_shown(url)} did not take it all ({_reason(err)}); {remedy}") from err


def _reason(err: BaseException) -> str:
    """Why, without what differs at every try: of a server that does not answer only the operating system's word."""
    from requests.exceptions import ConnectionError as NoConnection
    from requests.exceptions import Timeout

    chain: list[BaseException] = []
    cause: BaseException | None = err
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    unanswered = any(isinstance(one, NoConnection | Timeout) for one in chain)
    innermost = [one for one in chain if isinstance(one, OSError)][-1:]
    if unanswered and innermost:
        return f"no answer: {innermost[0].strerror or innermost[0]}"[:_MAX_REASON]
    return " ".join(str(err).split())[:_MAX_REASON]


def experiment_id(client: "MlflowClient", name: str) -> str:
    """Id of the experiment of that name, made when there is none."""
    found = client.get_experiment_by_name(name)
    return str(client.create_experiment(name) if found is None else found.experiment_id)


def _known_version(client: "MlflowClient", name: str, digest: str) -> str | None:
    """The version of model `name` (made when missing) that holds this digest."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as err:
        if err.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    found = client.search_model_versions(f"name='{name}' and tags.`{_DIGEST_TAG}`='{digest}'")
    return str(found[0].version) if found else None


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


def _uploaded(client: "MlflowClient", folder: Path, experiment: str, digest: str) -> tuple[str, str]:
    """Upload a folder that no mirrored run holds, in a run of its own; one that broke off half-way is used again."""
    where = experiment_id(client, experiment)
    begun = client.search_runs([where], f"tags.`{_DIGEST_TAG}` = '{digest}'", max_results=1)
    run = begun[0] if begun else client.create_run(where, run_name=f"register {folder.name}", tags={_DIGEST_TAG: digest})
    run_id = str(run.info.run_id)
    client.log_artifacts(run_id, str(folder), "package")
    client.set_terminated(run_id)
    return run_id, "package"


def _shown(url: str) -> str:
    """The address without name and password."""
    host = urlsplit(url).netloc.rpartition("@")
    return url.replace(f"{host[0]}@", "") if host[1] else url
