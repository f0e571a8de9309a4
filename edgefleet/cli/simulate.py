"""`edgefleet simulate`: what a policy would do to a fleet, beside what other systems' policies would."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from edgefleet.cli.fleet import MAX_POLICY_BYTES, read_policy
from edgefleet.cli.main import print_json
from edgefleet.errors import ConfigError
from edgefleet.report.table import table

if TYPE_CHECKING:
    from fleet_server.rollout.policy import Policy
    from fleet_server.simulate.reference import Reference
    from fleet_server.simulate.study import Summary

_FILE = click.Path(path_type=Path, dir_okay=False)
_RELEASES: Final = ("1 %", "10 %", "10 % after 12 h", "10 % dark")
OWN: Final = "edgefleet"


@click.command()
@click.option("--devices", type=int, default=10_000, show_default=True, help="Devices of the fleet, up to 1,000,000.")
@click.option("--days", type=int, default=14, show_default=True, help="A rollout that is not over by then is stuck.")
@click.option("--runs", type=int, default=20, show_default=True, help="Rollouts of each kind.")
@click.option("--seed", type=int, default=1, show_default=True, help="Equal seeds give equal numbers.")
@click.option(
    "--scene", default="churn", show_default=True, help="Who is heard when: churn, day-and-night, batteries, reordering, drift, ..."
)
@click.option("--release", "releases", multiple=True, metavar="NAME|SHARE:KIND:HOURS", help="What the release does, like 0.1:late:12.")
@click.option("--model", metavar="NAME", help="What its model does, as the policy's gates see it: 'nothing changed', '20 % slower', ...")
@click.option("--policy", "files", type=_FILE, multiple=True, help="Policy file; without one, the measured defaults. Repeatable.")
@click.option("--language", type=click.Choice(["edgefleet", "hawkbit", "aws", "mender"]), default=OWN, help="In which it is written.")
@click.option(
    "--against", multiple=True, metavar="NAME|all", help="Compare with a known policy of another system: time-phased, hawkbit-50, ..."
)
@click.option("--answer-h", type=float, default=0.0, show_default=True, help="Hours after which a person confirms what a policy asks.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def simulate(  # click explains the options
    devices: int,
    days: int,
    runs: int,
    seed: int,
    scene: str,
    releases: tuple[str, ...],
    model: str | None,
    files: tuple[Path, ...],
    language: str,
    against: tuple[str, ...],
    answer_h: float,
    as_json: bool,
) -> None:
    """Run rollouts over a virtual fleet, by the engine that steers real ones.

    Policies of hawkBit (a rollout), AWS IoT (a job) and Mender (a phased deployment) are read from the JSON that those systems take
    (--language), and run over the same fleets.
    """
    from fleet_server.simulate.models import change_named
    from fleet_server.simulate.study import behaviour_named, scene_named, study

    change = None if model is None else change_named(model)
    policies = _policies(files, language, against)
    behaviours = [behaviour_named(name) for name in releases or _RELEASES]
    if len({one.name for one in behaviours}) < len(behaviours):
        raise ConfigError("a release is named twice; name each one once")
    found_scene = scene_named(scene)
    total = runs * len(behaviours) * len(policies)
    with click.progressbar(length=max(total, 1), label=f"{total} rollouts", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        rows = list(
            study(
                policies,
                behaviours,
                found_scene,
                devices=devices,
                runs=runs,
                seed=seed,
                days=days,
                change=change,
                answer_s=3_600 * answer_h,
                told=lambda _: bar.update(1),
            )
        )
    if as_json:
        print_json(
            {
                "devices": devices,
                "days": days,
                "runs": runs,
                "seed": seed,
                "scene": found_scene.name,
                "model": model,
                "rows": [asdict(row) for row in rows],
            }
        )
        return
    does = "" if model is None else f", model: {model}"
    each = "1 run each" if runs == 1 else f"{runs} runs each"
    click.echo(f"{devices:,} devices, {found_scene.name}{does}, {each}, seed {seed}, at most {days} days")
    click.echo(
        table(
            ["release", "policy", "harmed: median (p95)", "stopped %", "abort/pause/stuck", "halted, h", "done, h"], list(map(_row, rows))
        )
    )


def _row(row: "Summary") -> list[object]:
    how = "/".join(f"{100 * share:.3g}" for share in row.how.values())
    hours = ("-" if value is None else f"{value:.1f}" for value in (row.halt_h, row.done_h))
    return [row.release, row.policy, f"{row.harmed_median:.0f} ({row.harmed_p95:.0f})", f"{100 * row.stopped:.1f}", how, *hours]


def _policies(files: tuple[Path, ...], language: str, against: tuple[str, ...]) -> "dict[str, Policy | Reference]":
    from fleet_server.rollout.plans import default_policy
    from fleet_server.rollout.policy import parse_policy
    from fleet_server.simulate.reference import read_reference
    from fleet_server.simulate.reference.known import DOCUMENTS, known
    from fleet_server.simulate.run import NOT_SIMULATED

    if language != OWN and not files:
        raise click.UsageError(f"--language {language} is for a --policy FILE; a known policy of another system comes with --against")
    found: dict[str, Policy | Reference] = {}
    if language != OWN or not files:
        found[OWN] = default_policy()
    for path in files:
        policy = parse_policy(read_policy(path)) if language == OWN else read_reference(language, _read_json(path))
        name = path.stem if path.stem not in found else str(path)
        if name in found:
            raise ConfigError(f"{path} is named twice; name each policy once")
        found[name] = policy
        if left_out := [key for key in NOT_SIMULATED if language == OWN and read_policy(path).get(key)]:
            click.echo(f"{path}: not simulated: {', '.join(left_out)}", err=True)
    for name in DOCUMENTS if "all" in against else dict.fromkeys(against):
        if name not in DOCUMENTS:
            raise ConfigError(f"--against {name[:40]!r} is unknown; known: all, {', '.join(DOCUMENTS)}")
        found[name] = known(name)
    return found


def _read_json(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_POLICY_BYTES + 1)
        if len(content) > MAX_POLICY_BYTES:
            raise ConfigError(f"{path}: larger than the {MAX_POLICY_BYTES} bytes that a policy may have")
        return json.loads(content)
    except (OSError, ValueError, RecursionError) as err:
        raise ConfigError(f"{path}: no policy can be read from it: {str(err)[:200]}") from err
