"""`edgefleet serve`: the fleet server with everything in one process."""

import tomllib
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from edgefleet.errors import ConfigError

MAX_POLICY_BYTES: Final = 65_536
ROUND_KEY: Final = "round_s"
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option(
    "--data", "data_dir", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of database, blobs, keys."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="TCP port; 0 takes a free one.")
@click.option("--public-url", default=None, help="Address that devices and people use, when a proxy stands in front.")
@click.option("--behind-tls-proxy", is_flag=True, help="A proxy in front speaks TLS; without it only this machine is served.")
@click.option("--fleet", default="fleet", show_default=True, help="Name of the fleet; signed into every desired state.")
@click.option("--broker", "broker_url", default=None, metavar="mqtt://HOST:PORT", help="MQTT broker; without it API and page only.")
@click.option("--public-broker", default=None, metavar="mqtt://HOST:PORT", help="The broker's address for devices, when it is another one.")
@click.option("--broker-user", default=None, help="User of the server at the broker.")
@click.option("--broker-password-file", type=_FILE, default=None, help="File with that user's password.")
@click.option("--mosquitto-passwords", type=_FILE, default=None, help="Mosquitto's password file; enrolment writes to it.")
@click.option("--mosquitto-pid-file", type=_FILE, default=None, help="Mosquitto's pid file; it is told to reload.")
@click.option("--anonymous-viewer", is_flag=True, help="Visitors without a token may look (loopback only).")
@click.option("--drift-round-seconds", default=None, type=float, help="Seconds between drift rounds; 3600 when nothing says otherwise.")
@click.option("--drift-policy", type=_FILE, default=None, help="TOML file: round_s and the limits of the drift rule.")
@click.option("--mlflow", "mlflow_url", default=None, metavar="URL", help="MLflow server; what is in service is its champion there.")
@click.option("--mlflow-prefix", default="", help="Before the project's id in the name there, when fleets share an MLflow server.")
@click.option("--poll-seconds", default=1.0, show_default=True, type=float, help="Seconds between looks for due rollouts.")
def serve(  # one parameter per option
    data_dir: Path,
    host: str,
    port: int,
    public_url: str | None,
    behind_tls_proxy: bool,
    fleet: str,
    broker_url: str | None,
    public_broker: str | None,
    broker_user: str | None,
    broker_password_file: Path | None,
    mosquitto_passwords: Path | None,
    mosquitto_pid_file: Path | None,
    anonymous_viewer: bool,
    drift_round_seconds: float | None,
    drift_policy: Path | None,
    mlflow_url: str | None,
    mlflow_prefix: str,
    poll_seconds: float,
) -> None:
    """Run the fleet server: API, page, ingest and scheduler.

    The first start writes an admin token to DATA/admin.token. SIGTERM ends it after the requests in flight.
    """
    from fleet_server.config import ServerConfig
    from fleet_server.drift import DriftPolicy
    from fleet_server.serve import run

    drift = _drift_document(drift_policy)
    round_s = drift.pop(ROUND_KEY, 3600.0)
    run(
        ServerConfig(
            data_dir=data_dir,
            host=host,
            port=port,
            public_url=public_url,
            behind_tls_proxy=behind_tls_proxy,
            fleet=fleet,
            broker_url=broker_url,
            public_broker_url=public_broker,
            broker_username=broker_user,
            broker_password_file=broker_password_file,
            mosquitto_password_file=mosquitto_passwords,
            mosquitto_pid_file=mosquitto_pid_file,
            anonymous_role="viewer" if anonymous_viewer else None,
            drift_round_s=float(round_s if drift_round_seconds is None else drift_round_seconds),
            drift_policy=DriftPolicy(**drift),
            mlflow_url=mlflow_url,
            mlflow_prefix=mlflow_prefix,
            scheduler_poll_s=poll_seconds,
        )
    )


def _drift_document(path: Path | None) -> dict[str, Any]:
    """The drift file's content; names that nobody knows are refused."""
    from fleet_server.drift import DriftPolicy

    if path is None:
        return {}
    try:
        with path.open("rb") as stream:
            document = tomllib.loads(stream.read(MAX_POLICY_BYTES).decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise ConfigError(f"{path}: no drift policy can be read from it: {err}") from err
    try:
        msgspec.convert({key: value for key, value in document.items() if key != ROUND_KEY}, DriftPolicy)
    except msgspec.ValidationError as err:
        raise ConfigError(f"{path}: {err}") from err
    known = {*DriftPolicy.__annotations__, ROUND_KEY}
    if unknown := sorted(set(document) - known):
        raise ConfigError(f"{path}: {unknown[0][:60]!r} is unknown; known: {', '.join(sorted(known))}")
    return document
