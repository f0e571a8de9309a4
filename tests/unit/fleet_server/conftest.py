"""What several modules of tests begin with: the page over invented read models, a bundle."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from fleet_server.auth import SESSION_COOKIE
from tests.unit.fleet_server import page_values as values
from tests.unit.fleet_server.server_world import MadeBundle, make_bundle


@pytest.fixture
def source() -> values.InventedSource:
    return values.InventedSource()


@pytest.fixture
def visitor(source: values.InventedSource) -> Iterator[FlaskClient]:
    """Nobody has signed in."""
    app, feed = values.page_app(source)
    yield app.test_client()
    feed.close()


@pytest.fixture
def client(visitor: FlaskClient) -> FlaskClient:
    """An operator has."""
    visitor.set_cookie(SESSION_COOKIE, "operator-2")
    return visitor


@pytest.fixture
def bundle(tmp_path: Path) -> MadeBundle:
    return make_bundle(tmp_path / "bundle")
