"""`edgefleet validate`: a package's gates again, on new rows."""

from pathlib import Path

import click
import msgspec

from edgefleet.cli.main import print_json
from edgefleet.errors import VerdictError


@click.command()
@click.argument("package_dir", metavar="PACKAGE", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="CSV or Parquet file with inputs and label, or a project folder."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def validate(package_dir: Path, data: Path, as_json: bool) -> None:
    """Run PACKAGE's gates again on rows that it was not trained on.

    Exit codes: 0 no gate forbids the package, 1 one does (failed, or inconclusive and not allowed), 3 package or rows cannot be used.
    """
    from edgefleet.package import ModelPackage
    from trainer.validate import validate as judge

    package = ModelPackage.open(package_dir)
    found = judge(package, data)
    if as_json:
        verdict = "fail" if found.blocking else "pass"
        gates = [msgspec.to_builtins(gate) for gate in found.gates]
        document = {"package": str(package_dir), "package_digest": found.package, "verdict": verdict, "rows": found.rows}
        print_json({**document, "metric": found.metric, "gates": gates, "evaluation": found.evaluation})
    else:
        for gate in found.gates:
            click.echo(f"  {gate.gate} {gate.verdict}: {gate.sentence}")
        click.echo(f"{found.rows} rows judged.")
    if found.blocking:
        named = ", ".join(f"{gate.gate} {gate.verdict}" for gate in found.blocking)
        raise VerdictError(f"package {found.package[:12]} would not be packaged on these rows: {named}; train again, or look at the rows")
