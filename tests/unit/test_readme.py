"""README promises only what exists: its commands parse, its pictures and links are there."""

import re
from pathlib import Path

import click
import pytest

from edgefleet.cli.main import COMMANDS, edgefleet

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
COMMAND = re.compile(r"^    edgefleet (.+)$", flags=re.MULTILINE)
LINES = [line.split("#")[0].split() for line in COMMAND.findall(README)]
GUIDE_LINES = [line.split("#")[0].split() for line in COMMAND.findall((ROOT / "docs" / "trainer.md").read_text())]


def test_the_two_commands_stand_before_everything_else() -> None:
    first = README[: README.index("## ")]
    assert "    ./run demo" in first
    assert "    ./run test" in first


@pytest.mark.parametrize("words", LINES + GUIDE_LINES, ids=" ".join)
def test_every_command_line_of_readme_and_guide_names_a_command_and_options_that_exist(words: list[str]) -> None:
    context = click.Context(edgefleet)
    command: click.Command | None = edgefleet
    rest = list(words)
    while isinstance(command, click.Group):
        command = command.get_command(context, rest.pop(0))
    assert command is not None
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in rest if word.startswith("-")} <= options
    arguments = [parameter for parameter in command.params if isinstance(parameter, click.Argument)]
    if all(argument.nargs > 0 for argument in arguments):
        assert sum(word.isupper() and not rest[max(i - 1, 0)].startswith("--") for i, word in enumerate(rest)) <= len(arguments)


def test_the_readme_shows_most_commands() -> None:
    shown = {words[0] for words in LINES} | {"demo"}
    assert set(COMMANDS) - shown <= {"runs", "bundle", "devices", "fleet", "experiment"}


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)]+)\)", README))))
def test_every_link_and_picture_of_the_readme_is_there(target: str) -> None:
    path, _, section = target.partition("#")
    assert (ROOT / path).exists()
    if section:
        headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), flags=re.MULTILINE)
        assert section in {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("option", ["--devices", "--seed", "--broker", "--keep", "--headless", "--json"])
def test_the_demo_has_the_options_that_the_readme_names(option: str) -> None:
    command = edgefleet.get_command(click.Context(edgefleet), "demo")
    assert command is not None
    assert option in README
    assert option in {name for parameter in command.params for name in parameter.opts}
