"""`edgefleet`: finds the subcommand, turns errors into one line and an exit code."""

import importlib
import json
import logging
import os
import sys
from typing import Any, Final

import click

from edgefleet import __version__
from edgefleet.errors import EdgefleetError, MissingPartError

# name -> (module, attribute, one line of help); the modules are imported only when the subcommand runs.
COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "demo": ("edgefleet.cli.demo", "demo", "Run the whole loop on this machine and open the operators' page."),
    "init": ("edgefleet.cli.init", "init", "Write a first project.toml from a look at a data file."),
    "data": ("edgefleet.cli.data", "data", "Check a project's rows, or write a report about them."),
    "train": ("edgefleet.cli.train", "train", "Train, validate and package a model from a project folder."),
    "runs": ("edgefleet.cli.runs", "runs", "List, show and compare the recorded training runs of a project."),
    "import": ("edgefleet.cli.importing", "import_command", "Make a model package of a model made elsewhere."),
    "validate": ("edgefleet.cli.validate", "validate", "Run a model package's gates again on new rows."),
    "convert": ("edgefleet.cli.convert", "convert", "Convert a model package into a bundle and prove every variant."),
    "export": ("edgefleet.cli.export", "export", "Hand a project or package to another system (Kubeflow Pipelines, MLflow)."),
    "bundle": ("edgefleet.cli.bundle", "bundle", "Show, verify or compare bundles."),
    "push": ("edgefleet.cli.fleet", "push", "Send a bundle to the fleet server as a release."),
    "release": ("edgefleet.cli.release", "release", "Show or raise the release floor of a project."),
    "serve": ("edgefleet.cli.serve", "serve", "Run the fleet server: API, page, ingest and scheduler."),
    "enroll": ("edgefleet.cli.fleet", "enroll", "Enrol a device and write its identity folder."),
    "people": ("edgefleet.cli.people", "people", "List, add and remove the people who look, steer and approve."),
    "devices": ("edgefleet.cli.devices", "devices", "List devices, show one, say which rows may leave them."),
    "rollout": ("edgefleet.cli.rollout", "rollout", "Plan, start, watch, explain and steer rollouts."),
    "fleet": ("edgefleet.cli.fleet_halt", "fleet", "Halt every rollout on every device, or lift that."),
    "simulate": ("edgefleet.cli.simulate", "simulate", "Run rollouts over a virtual fleet, beside other systems' policies."),
    "experiment": ("edgefleet.cli.experiment", "experiment", "Compare two releases on devices until the numbers tell."),
    "drift": ("edgefleet.cli.fleet", "drift", "Show drift by device and input."),
    "agent": ("edgefleet.cli.agent", "agent", "Run the device agent, score rows, or show its state."),
}


class LazyGroup(click.Group):
    """Commands that are imported only when they run.

    Args:
        table: By name the module, its attribute, and one line of help.
    """

    def __init__(self, *arguments: Any, table: dict[str, tuple[str, str, str]], **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the table's order."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one."""
        if cmd_name not in self._table:
            return None
        module_name, attribute, _ = self._table[cmd_name]
        try:
            command = getattr(importlib.import_module(module_name), attribute)
        except ModuleNotFoundError as err:
            raise _missing(cmd_name, err) from err
        assert isinstance(command, click.Command)  # noqa: S101  # a wrong entry in the table is a programming error
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The lines of help, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in self._table.items()])


@click.group(cls=LazyGroup, table=COMMANDS)
@click.version_option(__version__, prog_name="edgefleet")
@click.option("--verbose", is_flag=True, help="Log every step to stderr.")
def edgefleet(verbose: bool) -> None:
    """Train a model, shrink it, prove it, roll it out to a fleet in stages, and keep it honest there."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


def main() -> None:
    """Entry point; exit codes: 0 done, 1 verdict fail, 2 usage, 3 bad input, 4 peer unreachable, 78 missing part."""
    try:
        edgefleet.main(standalone_mode=False)
    except click.ClickException as err:
        err.show()
        sys.exit(err.exit_code)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except click.exceptions.Exit as err:
        sys.exit(err.exit_code)
    except EdgefleetError as err:
        click.echo(f"edgefleet: {err}", err=True)
        sys.exit(err.exit_code)
    except ModuleNotFoundError as err:
        click.echo(f"edgefleet: {_missing('this command', err)}", err=True)
        sys.exit(MissingPartError.exit_code)
    except BrokenPipeError:
        # The reader (head, less) went away: nothing is wrong with us. Keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def print_json(document: Any) -> None:
    """One JSON document on stdout, for machines."""
    click.echo(json.dumps(document, indent=1, sort_keys=False))


# Which extra brings which module, for the one line that installs what is missing.
_MODULES_OF: Final = {
    "train": ("sklearn", "pandas", "skops"),
    "keras": ("tensorflow", "keras"),
    "convert": ("onnx", "skl2onnx", "tf2onnx", "ai_edge_quantizer"),
    "onnx": ("onnxruntime",),
    "tflite": ("ai_edge_litert",),
    "server": ("flask", "sqlalchemy", "alembic", "waitress"),
    "demo": ("iotcore",),
}


def _missing(command: str, err: ModuleNotFoundError) -> MissingPartError:
    module = (err.name or "").partition(".")[0]
    extra = next((extra for extra, modules in _MODULES_OF.items() if module in modules), None)
    if extra is None:
        return MissingPartError(f"{command}: {err}")
    return MissingPartError(f"{command} needs {module}, which is not installed: pip install 'edgefleet[{extra}]'")
