"""The page over invented read models, for all tests of its screens."""

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from fleet_server.auth import SESSION_COOKIE
from tests.unit.fleet_server import page_values as values


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
