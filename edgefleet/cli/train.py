"""`edgefleet train`: train from a project folder."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from edgefleet.cli.main import print_json
from edgefleet.errors import ConfigError, VerdictError
from edgefleet.manifest import Override
from edgefleet.report.table import measured
from edgefleet.report.table import table as text_table

if TYPE_CHECKING:
    from trainer import GateRefused, Project, Training

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.argument("project_dir", type=_FOLDER, required=False)
@click.option("--candidate", "candidates", multiple=True, help="Train only this candidate; repeatable.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="TABLE.KEY=VALUE",
    help="Change a setting of project.toml for this run (a TOML value); repeatable.",
)
@click.option(
    "--override",
    "--override-gate",
    "gates",
    multiple=True,
    metavar="GATE",
    help="Overrule a gate that fails, e.g. G4; needs --reason; repeatable.",
)
@click.option("--reason", default="", help="Why the gates are overruled; it travels with the model.")
@click.option("--champion", type=_FOLDER, help="Package of the model in service: gate G7 compares with it on the same rows.")
@click.option("--runs-dir", type=_FOLDER, help="Where run folders go; PROJECT_DIR/runs when left out.")
@click.option("--output", type=_FOLDER, help="Write the winner's package here too; must not exist.")
@click.option("--explain-cache", is_flag=True, help="Say of every step why it ran or did not.")
@click.option("--replay", metavar="RUN", help="Repeat this run from nothing and name what differs.")
@click.option("--list-candidates", is_flag=True, help="Print the candidates there are, and end.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def train(
    project_dir: Path | None,
    candidates: tuple[str, ...],
    changes: tuple[str, ...],
    gates: tuple[str, ...],
    reason: str,
    champion: Path | None,
    runs_dir: Path | None,
    output: Path | None,
    explain_cache: bool,
    replay: str | None,
    list_candidates: bool,
    as_json: bool,
) -> None:
    """Train, validate and package a model from PROJECT_DIR/project.toml.

    Exit codes: 0 packaged, 1 a gate forbids it or a replay differs, 3 bad project or rows, 78 a missing part.
    """
    if list_candidates:
        _print_candidates(as_json)
        return
    if project_dir is None:
        raise click.UsageError("name the folder that holds project.toml: edgefleet train PROJECT_DIR")
    if replay is not None:
        if candidates or changes or gates or reason or output is not None or explain_cache:
            raise click.UsageError("--replay repeats a run as it was; beside it stand --runs-dir, --champion and --json only")
        _replay(project_dir, replay, runs_dir, champion, as_json)
        return
    from trainer import GateRefused, load_project, run_training

    overrides = overrides_of(gates, reason)
    project = load_project(project_dir, changes)
    if not as_json:
        _print_goal(project)
    progress, done = _progress()
    try:
        training = run_training(
            project, candidates=candidates or None, overrides=overrides, champion=champion, runs_dir=runs_dir, output=output, said=progress
        )
    except GateRefused as refused:
        done()
        if as_json:
            print_json(_refusal_document(refused))
        else:
            _print_gates(refused.gates)
        raise
    finally:
        done()
    if as_json:
        print_json(_document(training))
    else:
        _print_training(training)
        if explain_cache:
            click.echo("")
            click.echo(text_table(["step", "why"], [list(pair) for pair in training.steps.items()]))


def overrides_of(gates: Sequence[str], reason: str) -> list[Override]:
    """What --override-gate and --reason mean together.

    Raises:
        ConfigError: One without the other.
    """
    if bool(gates) != bool(reason.strip()):
        raise ConfigError("--override-gate and --reason belong together: name the gate and say why it is overruled")
    return [Override(gate=gate, reason=reason.strip()) for gate in gates]


def _progress() -> tuple[Callable[[str], None], Callable[[], None]]:
    """A line that names the present step, only where a person watches."""
    if not sys.stderr.isatty():
        return (lambda _: None), (lambda: None)
    return (lambda step: click.echo(f"\r\033[K  {step} ...", err=True, nl=False)), (lambda: click.echo("\r\033[K", err=True, nl=False))


def _print_candidates(as_json: bool) -> None:
    from trainer.candidates import describe

    rows = describe()
    if as_json:
        print_json({"candidates": rows})
    else:
        click.echo(text_table(list(rows[0]), [[str(value) for value in row.values()] for row in rows]))


def _replay(project_dir: Path, wanted: str, runs_dir: Path | None, champion: Path | None, as_json: bool) -> None:
    from trainer.replaying import replay_run

    outcome = replay_run(project_dir, wanted, runs_dir or project_dir / "runs", champion)
    if as_json:
        print_json(outcome.plain())
    else:
        click.echo(f"run {outcome.old} repeated as {outcome.new}")
        click.echo("\n".join(f"  {line}" for line in outcome.sentences) or "  nothing was asked differently")
        click.echo("reproduced: the same results" if outcome.reproduced else "NOT reproduced")
    if not outcome.reproduced:
        raise VerdictError(f"the replay of run {outcome.old} gave other results; see what differs above")


def _document(training: "Training") -> dict[str, Any]:
    candidates = []
    for outcome in training.outcomes:
        candidate = outcome.candidate
        candidates.append(
            {
                "name": outcome.name,
                "package": None if outcome.package is None else str(outcome.package.folder),
                **{key: candidate.metric[key] for key in ("value", "low", "high", "n")},
                "seconds": candidate.seconds,
                "gates": [msgspec.to_builtins(gate) for gate in candidate.gates],
            }
        )
    metric = training.project.goal.metric
    return {
        "package": str(training.package.folder),
        "package_digest": training.package.digest,
        "run": str(training.run),
        "report": str(training.run / "report.html"),
        "winner": training.winner,
        "metric": metric,
        "test": {key: training.test[metric][key] for key in ("value", "low", "high", "n")},
        "candidates": candidates,
        "baselines": [{"name": b.name, **{key: b.metric[key] for key in ("value", "low", "high", "n")}} for b in training.baselines],
        "steps": training.steps,
    }


def _refusal_document(refused: "GateRefused") -> dict[str, Any]:
    candidates = []
    for name, gates in refused.gates.items():
        metric = refused.metrics.get(name, {})
        figures = {key: metric.get(key) for key in ("value", "low", "high", "n")}
        candidates.append({"name": name, "package": None, **figures, "gates": [msgspec.to_builtins(gate) for gate in gates]})
    return {"package": None, "run": str(refused.run), "winner": None, "candidates": candidates, "reason": str(refused)}


def _print_goal(project: "Project") -> None:
    goal = project.goal
    click.echo(f"{project.name}: {goal.question}")
    limit = "no criterion: nothing can be blessed"
    if goal.minimum is not None:
        limit = f"at least {goal.minimum:g}"
    if goal.maximum is not None:
        limit = f"at most {goal.maximum:g}"
    click.echo(f"goal: {goal.metric} {limit}; less than {goal.noninferior_margin:g} worse than the champion\n")


def _print_training(training: "Training") -> None:
    metric = training.project.goal.metric
    table = [[f"{b.name} (baseline)", measured(b.metric), f"{b.seconds:.1f}", "-"] for b in training.baselines]
    for outcome in training.outcomes:
        where = "refused" if outcome.package is None else str(outcome.package.folder)
        name = f"{outcome.name} (won)" if outcome.name == training.winner else outcome.name
        table.append([name, measured(outcome.candidate.metric), f"{outcome.candidate.seconds:.1f}", where])
    click.echo(text_table(["candidate", f"validation {metric} [95 %]", "seconds", "package"], table))
    click.echo("")
    _print_gates({outcome.name: outcome.candidate.gates for outcome in training.outcomes})
    for sentence in training.record["report"].get("remarks", []) + training.record.get("remarks", []):
        click.echo(f"\n{sentence}")
    click.echo(f"\n{training.winner} won. Test rows, looked at once: {metric} {measured(training.test[metric])}.")
    click.echo(f"run:     {training.run}\nreport:  {training.run / 'report.html'}\npackage: {training.package.folder}")


def _print_gates(gates: dict[str, Any]) -> None:
    """Gates that all candidates share are printed once."""
    every = list(gates.values())
    shared = [gate for gate in every[0] if all(gate in other for other in every)] if every else []
    for gate in shared:
        click.echo(f"  {gate.gate} {gate.verdict}: {gate.sentence}")
    for name, own in gates.items():
        for gate in own:
            if gate not in shared:
                click.echo(f"  {name} {gate.gate} {gate.verdict}: {gate.sentence}")
