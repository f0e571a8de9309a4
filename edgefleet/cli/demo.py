"""`edgefleet demo`: the whole loop, from the examples of a checkout."""

import sys
from pathlib import Path

import click

from edgefleet.cli.main import print_json
from edgefleet.errors import ConfigError, MissingPartError

ROOT = Path(__file__).resolve().parents[2]


@click.command()
@click.option("--headless", is_flag=True, help="End after the summary instead of keeping the page open.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document to stdout at the end.")
@click.option("--devices", type=click.IntRange(6, 64), default=8, show_default=True, help="How many agents; drift needs at least 5 peers.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of data, models and of who gets the camera fault.")
@click.option("--broker", default="auto", show_default=True, help="auto, mosquitto, iotcore, or mqtt://HOST:PORT.")
@click.option("--keep", type=click.Path(path_type=Path), default=None, help="Keep all files in this folder.")
def demo(headless: bool, as_json: bool, devices: int, seed: int, broker: str, keep: Path | None) -> None:
    """Train, convert, roll out, score, drift, explain, replace: on this machine, with real processes."""
    if not (ROOT / "examples" / "digits" / "demo.py").is_file():
        raise MissingPartError("the demo runs from a checkout of edgefleet: clone it and type ./run demo")
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise ConfigError(f"--keep {keep}: the folder holds files, perhaps of an earlier run; name a new or an empty one")
    sys.path.insert(0, str(ROOT))
    from examples.digits.demo import Options
    from examples.digits.run import run

    document = run(Options(headless=headless, devices=devices, seed=seed, broker=broker, keep=keep))
    if as_json:
        print_json(document)
    sys.exit(0 if document["ok"] else 1)
