"""`edgefleet import`: a model made elsewhere becomes a model package, through the same gates."""

from pathlib import Path
from typing import Any

import click
import msgspec

from edgefleet.cli.main import print_json
from edgefleet.cli.train import overrides_of
from edgefleet.errors import ConfigError

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path, dir_okay=False), required=True, help="CSV or Parquet file: inputs and label.")
@click.option("--label", default="", help="Column of the answer; the project's when left out.")
@click.option("--task", type=click.Choice(["classification", "regression", "anomaly"]), help="Kind of prediction; else the project's.")
@click.option("--name", default="", help="Name of the package's project; else the project's, or the file's name.")
@click.option("--classes", default="", help="The model's classes in its own order, by commas, where its file does not know them.")
@click.option("--metric", default="", help="What gate G4 judges; accuracy, rmse or auc when left out.")
@click.option("--minimum", type=float, help="Least value of the metric that helps.")
@click.option("--maximum", type=float, help="Largest value of the metric that helps, where less is better.")
@click.option("--project", "project_dir", type=_FOLDER, help="Project folder whose goal, gates and column meanings are taken.")
@click.option("--override-gate", "gates", multiple=True, metavar="GATE", help="Overrule a gate that fails; needs --reason; repeatable.")
@click.option("--reason", default="", help="Why the gates are overruled; it travels with the model.")
@click.option("--output", type=_FOLDER, help="Package folder to write, must not exist; ./NAME-package when left out.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def import_command(
    source: Path, data: Path, project_dir: Path | None, gates: tuple[str, ...], reason: str, output: Path | None, as_json: bool, **said: Any
) -> None:
    """Import SOURCE: an MLflow model directory (sklearn saved with skops, onnx, keras), or a .skops, .onnx, .tflite or .keras file.

    The data sample gives schema, reference statistics and golden rows, and the gates judge the model on half of it. Pickles are never
    opened. Exit codes: 0 packaged, 1 a gate forbids it, 3 model or data cannot be used, 78 a missing part.
    """
    from trainer.importers.importing import ImportRefused, import_model
    from trainer.importers.sample import Wish

    overrides = overrides_of(gates, reason)
    if not said["label"] and project_dir is None:
        raise ConfigError("--label is needed where no --project names the column of the answer")
    names = [name.strip() for name in said.pop("classes").split(",") if name.strip()]
    wish = Wish(**said, classes=names)
    folder = output or Path(f"{wish.name or source.stem}-package")
    try:
        imported = import_model(source, data, wish, folder, project_dir=project_dir, overrides=overrides)
    except ImportRefused as refused:
        if as_json:
            print_json({"package": None, "gates": [msgspec.to_builtins(gate) for gate in refused.gates], "reason": str(refused)})
        else:
            _print(refused.gates)
        raise
    package, signature = imported.package, imported.signature
    if as_json:
        document: dict[str, Any] = {"package": str(package.folder), "package_digest": package.digest, "family": package.index.family}
        document |= {"classes": package.index.classes, "output": signature.output, "meaning": signature.meaning}
        print_json({**document, "metric": imported.metric, "gates": [msgspec.to_builtins(gate) for gate in imported.gates]})
        return
    _print(imported.gates)
    click.echo(f"\noutput {signature.output!r} read as {signature.meaning}")
    if package.index.classes:
        click.echo(f"classes: {', '.join(package.index.classes)}")
    click.echo(f"package: {package.folder}")


def _print(gates: Any) -> None:
    for gate in gates:
        click.echo(f"  {gate.gate} {gate.verdict}: {gate.sentence}")
