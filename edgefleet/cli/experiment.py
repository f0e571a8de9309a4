"""`edgefleet experiment create|status|stop`: two releases side by side on devices, until the numbers say which is better."""

from pathlib import Path
from typing import Any

import click

from edgefleet.cli.fleet import client_of, read_policy, select_option, selection_of, server_options
from edgefleet.cli.main import print_json
from edgefleet.client import Json
from edgefleet.report.table import table

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def experiment() -> None:
    """Compare two releases on devices (A/B); `edgefleet rollout start|pause|resume` work on an experiment too."""


@experiment.command("create")
@click.option("--release", "release_id", required=True, help="Release of arm B.")
@click.option("--plan", "plan_file", type=_FILE, required=True, help="Plan of the experiment (TOML): see docs/experiments.md.")
@select_option
@click.option("--start", is_flag=True, help="Start it at once.")
@server_options
def create(
    release_id: str, plan_file: Path, selects: tuple[str, ...], start: bool, server: str, token_file: Path | None, as_json: bool
) -> None:
    """Plan an experiment over the devices that run the baseline; it waits for `rollout start`."""
    client = client_of(server, token_file)
    plan = read_policy(plan_file)
    policy = plan.pop("policy", None)
    view = client.create_experiment(release_id, plan, policy, selection_of(selects))
    if start:
        client.action(view["experiment_id"], "start", view["version"])
        view = client.experiment(view["experiment_id"])
    _show(view, as_json)


@experiment.command("status")
@click.argument("experiment_id", required=False)
@server_options
def status(experiment_id: str | None, server: str, token_file: Path | None, as_json: bool) -> None:
    """One experiment with its arms and what may end it, or the list of all."""
    client = client_of(server, token_file)
    if experiment_id is not None:
        _show(client.experiment(experiment_id), as_json)
        return
    views = client.experiments()
    if as_json:
        print_json(views)
        return
    lines = [(v["experiment_id"], v["metric"], v["state"], v["ending"] or "-", _effect(v), v["sentence"]) for v in views]
    print(table(("experiment", "metric", "state", "ending", "B - A", "now"), lines))


@experiment.command("stop")
@click.argument("experiment_id")
@click.option("--reason", default="", help="Why; it stands in the log.")
@server_options
def stop(experiment_id: str, reason: str, server: str, token_file: Path | None, as_json: bool) -> None:
    """End it without an answer: arm B goes back to what it ran before."""
    client = client_of(server, token_file)
    _show(client.stop_experiment(experiment_id, client.experiment(experiment_id)["version"], reason), as_json)


def _show(view: Json, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    ending = f", {view['ending']}" if view["ending"] else ""
    print(f"{view['experiment_id']} ({view['state']}{ending}, version {view['version']}): {view['sentence']}")
    print(view["missing"])
    header = ("arm", "release", "devices", "begun", "running it", "delivered", "measured", f"mean of {view['metric']}", "sd")
    print(table(header, [_arm(arm) for arm in view["arms"]]))
    print(f"B - A = {_effect(view)}, resolution {view['resolution']:g}, {view['better']} is better" + _needed(view))
    rows = [(one["name"], one["verdict"], one["now"], one["limit"], one["sentence"]) for one in view["questions"]]
    if rows:
        print(table(("question", "says", "now", "limit", "why"), rows))
    if view["winner_rollout_id"]:
        print(f"The winner waits as a rollout: edgefleet rollout start {view['winner_rollout_id']}")


def _arm(arm: Json) -> tuple[Any, ...]:
    numbers = (arm["devices"], arm["begun"], arm["running"], arm["delivered"], arm["n"])
    return arm["arm"], arm["release"], *numbers, _number(arm["mean"]), _number(arm["deviation"])


def _effect(view: Json) -> str:
    half = "" if view["half_width"] is None else f" +- {view['half_width']:.2g}"
    return "unknown yet" if view["difference"] is None else f"{view['difference']:+.3g}{half}"


def _needed(view: Json) -> str:
    return "" if view["devices_needed"] is None else f"; about {view['devices_needed']} devices tell it"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
