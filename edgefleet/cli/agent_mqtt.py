"""Options of the MQTT door of `edgefleet agent run`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from device_agent.doors.mqtt.settings import MqttOptions

F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path, dir_okay=False)
_OPTIONS = [
    click.option("--mqtt-door", metavar="URL", help="Answer rows on a topic of mqtt://HOST:PORT, mqtts://HOST:PORT, or `fleet`'s broker."),
    click.option("--mqtt-in", metavar="TOPIC", help="Topic or filter of the rows.  [default: ef/v1/d/DEVICE/score/in]"),
    click.option(
        "--mqtt-out", metavar="TOPIC", help="Topic of answers to those who name no response topic.  [default: ef/v1/d/DEVICE/score/out]"
    ),
    click.option("--mqtt-qos", type=click.IntRange(0, 1), default=1, show_default=True, help="Of rows and answers."),
    click.option("--mqtt-credentials", type=_FILE, help="File with one line USER:PASSWORD."),
    click.option("--mqtt-ca", type=_FILE, help="PEM file of the authorities that mqtts:// trusts.  [default: the system's]"),
]


def mqtt_options(command: F) -> F:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def mqtt_settings(values: dict[str, Any]) -> "MqttOptions | None":
    """The door that the options ask for.

    Raises:
        click.UsageError: Options of a door without the door.
    """
    from device_agent.doors.mqtt.settings import MqttOptions

    named = {name: values[f"mqtt_{name}"] for name in ("in", "out", "credentials", "ca")}
    if values["mqtt_door"] is None:
        if given := [f"--mqtt-{name}" for name, value in named.items() if value is not None]:
            raise click.UsageError(f"{', '.join(given)} without --mqtt-door URL")
        return None
    return MqttOptions(values["mqtt_door"], named["in"], named["out"], values["mqtt_qos"], named["credentials"], named["ca"])
