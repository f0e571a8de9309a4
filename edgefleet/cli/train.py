"""`edgefleet train` and `edgefleet runs`: train from a project folder, list what was trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from edgefleet.cli.main import print_json
from edgefleet.errors import ConfigError
from edgefleet.manifest import Override

if TYPE_CHECKING:
    from trainer import GateRefused, Project, Training

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.argument("project_dir", type=_FOLDER)
@click.option("--candidate", "candidates", multiple=True, help="Train only this candidate; repeatable.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="TABLE.KEY=VALUE",
    help="Change a setting of project.toml for this run (a TOML value); repeatable.",
)
@click.option(
    "--override-gate", "gates", multiple=True, metavar="GATE", help="Overrule a gate that fails, e.g. G4; needs --reason; repeatable."
)
@click.option("--reason", default="", help="Why the gates are overruled; it travels with the model.")
@click.option("--champion", type=_FOLDER, help="Package of the model in service: gate G7 compares with it on the same rows.")
@click.option("--runs-dir", type=_FOLDER, help="Where run folders go; PROJECT_DIR/runs when left out.")
@click.option("--output", type=_FOLDER, help="Write the winner's package here too; must not exist.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def train(
    project_dir: Path,
    candidates: tuple[str, ...],
    changes: tuple[str, ...],
    gates: tuple[str, ...],
    reason: str,
    champion: Path | None,
    runs_dir: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Train, validate and package a model from PROJECT_DIR/project.toml.

    Exit codes: 0 packaged, 1 a gate forbids it, 3 bad project or rows, 78 a missing part.
    """
    from trainer import GateRefused, load_project, run_training

    if bool(gates) != bool(reason.strip()):
        raise ConfigError("--override-gate and --reason belong together: name the gate and say why it is overruled")
    project = load_project(project_dir, changes)
    if not as_json:
        _print_goal(project)
    overrides = [Override(gate=gate, reason=reason.strip()) for gate in gates]
    try:
        training = run_training(
            project, candidates=candidates or None, overrides=overrides, champion=champion, runs_dir=runs_dir, output=output
        )
    except GateRefused as refused:
        if as_json:
            print_json(_refusal_document(refused))
        else:
            _print_gates(refused.gates)
        raise
    if as_json:
        print_json(_document(training))
    else:
        _print_training(training)


@click.group()
def runs() -> None:
    """Recorded training runs."""


@runs.command("list")
@click.option("--project", "project_dir", type=_FOLDER, default=Path(), help="Project folder; the current one when left out.")
@click.option("--runs-dir", type=_FOLDER, help="Where the run folders are; PROJECT/runs when left out.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def list_runs(project_dir: Path, runs_dir: Path | None, as_json: bool) -> None:
    """List the runs of a project, oldest first."""
    from trainer.runs import read_runs

    folder = runs_dir or project_dir / "runs"
    records = read_runs(folder)
    if as_json:
        print_json({"runs": records})
        return
    if not records:
        click.echo(f"no runs in {folder}; `edgefleet train {project_dir}` makes one")
        return
    table = [("run", "status", "winner", "validation", "test", "seconds")]
    for record in records:
        winner = str(record.get("winner", "-"))
        validation = record.get("candidates", {}).get(winner, {}).get("accuracy")
        seconds = sum(record.get("seconds", {}).values())
        table.append((str(record["id"]), str(record["status"]), winner, _share(validation), _share(record.get("test")), f"{seconds:.1f}"))
    _print_table(table)


def _document(training: "Training") -> dict[str, Any]:
    candidates = []
    for outcome in training.outcomes:
        candidate = outcome.candidate
        candidates.append(
            {
                "name": outcome.name,
                "package": None if outcome.package is None else str(outcome.package.folder),
                "accuracy": candidate.accuracy.value,
                "low": candidate.accuracy.low,
                "high": candidate.accuracy.high,
                "n": candidate.accuracy.n,
                "seconds": candidate.seconds,
                "gates": [msgspec.to_builtins(gate) for gate in candidate.gates],
            }
        )
    return {
        "package": str(training.package.folder),
        "package_digest": training.package.digest,
        "run": str(training.run),
        "winner": training.winner,
        "test": {key: training.test[key] for key in ("value", "low", "high", "n")},
        "candidates": candidates,
    }


def _refusal_document(refused: "GateRefused") -> dict[str, Any]:
    candidates = []
    for name, gates in refused.gates.items():
        accuracy = refused.accuracies.get(name, {})
        figures = {"accuracy": accuracy.get("value"), "low": accuracy.get("low"), "high": accuracy.get("high"), "n": accuracy.get("n")}
        candidates.append({"name": name, "package": None, **figures, "gates": [msgspec.to_builtins(gate) for gate in gates]})
    return {"package": None, "run": str(refused.run), "winner": None, "candidates": candidates, "reason": str(refused)}


def _print_goal(project: "Project") -> None:
    goal = project.goal
    click.echo(f"{project.name}: {goal.question}")
    click.echo(f"goal: {goal.metric} at least {goal.minimum:.3f}; less than {goal.noninferior_margin:.3f} worse than the champion\n")


def _print_training(training: "Training") -> None:
    table = [("candidate", "validation accuracy [95 %]", "seconds", "package")]
    for outcome in training.outcomes:
        accuracy = msgspec.to_builtins(outcome.candidate.accuracy)
        where = "refused" if outcome.package is None else str(outcome.package.folder)
        name = f"{outcome.name} (won)" if outcome.name == training.winner else outcome.name
        table.append((name, _share(accuracy), f"{outcome.candidate.seconds:.1f}", where))
    _print_table(table)
    click.echo("")
    _print_gates({outcome.name: outcome.candidate.gates for outcome in training.outcomes})
    click.echo(f"\n{training.winner} won. Test rows, looked at once: accuracy {_share(training.test)}.")
    click.echo(f"run:     {training.run}\npackage: {training.package.folder}")


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


def _share(value: dict[str, Any] | None) -> str:
    if not value:
        return "-"
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}] n={value['n']}"


def _print_table(table: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
