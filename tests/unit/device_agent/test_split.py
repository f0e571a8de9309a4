"""Two models share the rows: sticky by key, counted apart, and an experiment costs nobody an answer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agent import Scorer
from device_agent.doors.ab import STEPS, key_bytes, row_key, takes
from device_agent.doors.answering import Answering
from edgefleet.bundle import Bundle
from edgefleet.errors import ArtifactError, ConfigError, RowRejected
from tests.unit.device_agent.agent_world import make_bundle, rows, weights
from tests.unit.device_agent.bundles import logistic_bundle


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.a, self.b = make_bundle(folder / "a", weights(1)), make_bundle(folder / "b", weights(2))
        self.models = Answering()
        self.models.install(Scorer.open(self.a))
        self.challenger = Scorer.open(self.b)

    def answered_by(self, key: str | int | None, row: Any = (0.0,) * 5) -> str:
        digest = self.models.score(list(row), key=key).digest
        return "b" if digest == self.challenger.digest else "a"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.models.close()


def test_the_same_key_is_always_answered_by_the_same_model_and_a_larger_share_keeps_it(world: World) -> None:
    world.models.begin_split(world.challenger, 256, "autumn")
    keys = [f"machine-{i}" for i in range(200)]
    first = {key for key in keys if world.answered_by(key) == "b"}
    again = {key for key in reversed(keys) if world.answered_by(key) == "b"}
    world.models.set_share(512)
    more = {key for key in keys if world.answered_by(key) == "b"}

    assert first == again == {key for key in keys if takes("autumn", key_bytes(key), 256)}
    assert 0 < len(first) < len(more)
    assert first < more


def test_without_a_key_the_values_of_the_row_decide_in_whatever_form_they_come(world: World) -> None:
    world.models.begin_split(world.challenger, 512, "autumn")
    said = set()
    for row in rows(40):
        names = {f"f{i}": float(row[i]) for i in reversed(range(5))}
        forms = [row, row.tolist(), tuple(row.astype(np.float64)), names]
        digests = {world.models.score(form).digest for form in forms}
        assert len(digests) == 1
        said |= digests
    assert len(said) == 2


def test_both_models_are_counted_in_windows_of_their_own_with_their_shares(world: World) -> None:
    for i in range(10):
        world.answered_by(i)
    world.models.begin_split(world.challenger, 256, "autumn")
    asked = [world.answered_by(i) for i in range(300)]
    world.models.set_share(512)
    asked_more = [world.answered_by(i) for i in range(100)]
    world.models.end_split()
    world.answered_by(1)

    told = [(w.body.bundle_digest == world.b.digest, w.body.share_1024, w.body.answered) for w in world.models.take_windows(1)]
    assert told == [
        (False, None, 10),
        (False, 768, asked.count("a")),
        (True, 256, asked.count("b")),
        (False, 512, asked_more.count("a")),
        (True, 512, asked_more.count("b")),
        (False, None, 1),
    ]
    assert world.models.rows == 411


def test_a_batch_is_answered_by_one_model(world: World) -> None:
    world.models.begin_split(world.challenger, 512, "autumn")
    with Scorer.open(world.a) as a, Scorer.open(world.b) as b:
        expected = {False: a.score_batch(rows(8)).score, True: b.score_batch(rows(8)).score}
    for key in range(30):
        given = world.models.score_batch(rows(8), made_for=world.models.running, key=key)
        assert np.array_equal(given.score, expected[takes("autumn", key_bytes(key), 512)])


def test_where_the_challenger_fails_the_running_model_answers_and_it_is_counted(world: World) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ArtifactError("the challenger failed")

    world.challenger.score = world.challenger.score_batch = fail  # type: ignore[method-assign]
    split = world.models.begin_split(world.challenger, STEPS, "autumn")

    assert world.answered_by("x") == "a"
    assert len(world.models.score_batch(rows(4)).rejected) == 0
    assert (split.rows, split.fallbacks, split.last_error, world.models.rows, world.models.unanswered) == (
        5,
        5,
        "the challenger failed",
        5,
        0,
    )


def test_a_row_that_the_challenger_refuses_is_refused(world: World) -> None:
    world.models.begin_split(world.challenger, STEPS, "autumn")
    with pytest.raises(RowRejected, match="f4"):
        world.models.score([0, 0, 0, 0, 999.0])
    assert world.models.take_windows(1)[0].body.bundle_digest == world.b.digest


def test_installing_the_challenger_ends_the_split_and_keeps_its_rows(world: World) -> None:
    world.models.begin_split(world.challenger, STEPS, "autumn")
    world.answered_by("x")
    world.models.install(world.challenger)
    world.answered_by("y")

    assert world.models.split is None
    told = [(w.body.bundle_digest, w.body.share_1024, w.body.answered) for w in world.models.take_windows(1)]
    assert told == [(world.b.digest, STEPS, 1), (world.b.digest, None, 1)]


def test_a_split_that_cannot_be_is_refused_with_the_reason(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1025/1024 is out of range, expected 0 to 1024"):
        world.models.begin_split(world.challenger, 1025, "autumn")
    with pytest.raises(ConfigError, match="a salt of 0 bytes"):
        world.models.begin_split(world.challenger, 1, "")
    with Scorer.open(Bundle.open(logistic_bundle(tmp_path / "other").folder)) as other:
        with pytest.raises(ConfigError, match="models with different classes cannot share rows"):
            world.models.begin_split(other, 1, "autumn")
        with pytest.raises(ConfigError, match="no model is installed yet"):
            Answering().begin_split(other, 1, "autumn")
    with pytest.raises(ConfigError, match="no split is under way"):
        world.models.set_share(1)
    world.models.begin_split(world.challenger, 0, "autumn")
    with pytest.raises(ConfigError, match="split 'autumn' is under way"):
        world.models.begin_split(world.challenger, 1, "winter")
    assert {world.answered_by(i) for i in range(50)} == {"a"}


@pytest.mark.parametrize("row", [None, 5, "text", [[1], [2, 3]], [10**400], [object()], ["a", None], {}, [float("nan")], b"x"])
def test_whatever_is_no_row_has_a_key_too(row: Any) -> None:
    assert row_key(row, ["f0"]) == row_key(row, ["f0"])


def test_minus_zero_is_zero_and_missing_is_nan() -> None:
    assert row_key([-0.0, None], []) == row_key([0, float("nan")], [])
