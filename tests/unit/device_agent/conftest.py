"""Fixtures of the tests of the HTTP door: the bundle that most of them ask, and a door before it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.device_agent.bundles import forest_bundle
from tests.unit.device_agent.http_world import World, world


@pytest.fixture(scope="session")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a forest's bundle, which nobody changes."""
    return forest_bundle(tmp_path_factory.mktemp("forest")).folder


@pytest.fixture
def served(forest: Path) -> Iterator[World]:
    """A door before the forest, with counters of its own."""
    with world(forest) as one:
        yield one
