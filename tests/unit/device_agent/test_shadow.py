"""A candidate beside the running model: off the hot path, bounded, and nothing of it lost silently."""

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agent import Scorer
from device_agent.doors import shadow as shadow_module
from device_agent.doors.answering import Answering
from device_agent.update.trial import Trial, TrialVerdict
from edgefleet.errors import ArtifactError, ModelSwapped, RowRejected
from tests.unit.device_agent.agent_world import QUICK, make_bundle, rows, weights


class World:
    def __init__(self, folder: Path) -> None:
        self.a = make_bundle(folder / "a", weights(1))
        self.b = make_bundle(folder / "b", weights(2))
        self.models = Answering()
        self.models.install(Scorer.open(self.a))
        self.candidate = Scorer.open(self.b)
        self.trial = Trial(QUICK, 0.0, compared=True)

    def begin(self) -> None:
        self.models.begin_trial(self.candidate, self.trial)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.models.end_trial()
    made.models.close()


def test_rows_that_come_while_the_candidate_stops_are_shed_and_counted(world: World) -> None:
    world.begin()
    shadow = world.models._shadow
    assert isinstance(shadow, shadow_module.Shadow)
    with world.models._lock:  # the trial's end has to wait for it once its thread is gone
        ending = threading.Thread(target=world.models.end_trial)
        ending.start()
        shadow._thread.join(90.0)
        for row in rows(5).tolist():
            world.models.score(row)
    ending.join(90.0)

    (window,) = world.models.take_windows(1)
    assert window.body.shadow is not None
    assert (window.body.shadow.offered, window.body.shadow.shed, world.trial.shed) == (5, 5, 5)


def test_the_counts_are_those_of_scoring_both_models_one_after_the_other(world: World) -> None:
    x = rows(300)
    with Scorer.open(world.a) as ours, Scorer.open(world.b) as theirs:
        left, right = ours.score_batch(x), theirs.score_batch(x)
    agreed = int((left.index == right.index).sum())
    differences = right.probabilities[np.arange(300), left.index].astype(float) - left.score.astype(float)

    world.begin()
    for row in x[:200]:
        world.models.score(row.tolist())
    world.models.score_batch(x[200:])
    assert world.models.settle(30.0)
    (window,) = world.models.take_windows(1)

    counts = window.body.shadow
    assert counts is not None
    assert (counts.running, counts.shadow) == (world.a.digest, world.b.digest)
    assert (counts.offered, counts.compared, counts.agreed, counts.shed) == (300, 300, agreed, 0)
    assert 0 < agreed < 300
    assert counts.difference_mean == pytest.approx(differences.mean(), abs=1e-9)
    assert counts.difference_sd == pytest.approx(differences.std(), abs=1e-9)
    assert 0.0 < (counts.latency_us(0.5) or 0.0) <= (counts.latency_us(0.95) or 0.0) < 1e6
    pairs = {(i, j): n for i, j, n in counts.confusion}
    assert pairs == {(i, j): n for i in range(3) for j in range(3) if (n := int(((left.index == i) & (right.index == j)).sum()))}
    assert (world.trial.rows, world.trial.both, world.trial.agreed) == (300, 300, agreed)


def test_rows_that_one_or_both_models_cannot_answer_are_told_apart(world: World) -> None:
    world.begin()
    for row in ([1.0, 2.0], [1.0, 1.0, 1.0, 1.0, 999.0], "text", 7):
        with pytest.raises(RowRejected):
            world.models.score(row)  # type: ignore[arg-type]  # a caller's mistake
    world.candidate.close()  # from here on it fails on everything
    world.models.score([0.0] * 5)
    assert world.models.settle(30.0)
    world.models.end_trial()

    (window,) = world.models.take_windows(1)
    counts = window.body.shadow
    assert counts is not None
    assert (counts.offered, counts.both_failed, counts.shadow_failed, counts.compared) == (5, 4, 1, 0)
    assert (world.trial.both, world.trial.agreed, world.trial.last_error) == (1, 0, "the scorer is closed; open the bundle again")


def test_a_row_that_the_caller_changes_afterwards_is_compared_as_it_was(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_module, "IDLE_S", 0.3)  # the rows are changed before anybody looks
    world.candidate = Scorer.open(world.a)
    world.begin()
    row, array, batch = [0.5, 1.0, -1.0, 0.0, 2.0], np.ones(5, np.float32), rows(20)
    world.models.score(row)
    world.models.score(array)
    world.models.score_batch(batch)
    row[0], array[:], batch[:] = 40.0, -40.0, 40.0
    assert world.models.settle(30.0)

    assert (world.trial.both, world.trial.agreed) == (22, 22)
    assert world.models.take_windows(1)[0].body.shadow.difference_square_sum < 1e-12  # type: ignore[union-attr]


class Stuck:
    """Holds up a scorer until it is let go."""

    def __init__(self, scorer: Scorer) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        scorer.score_batch = partial(self._late, scorer.score_batch)  # type: ignore[method-assign]
        scorer.score = partial(self._late, scorer.score)  # type: ignore[method-assign]

    def _late(self, call: Any, given: Any) -> Any:
        self.entered.set()
        self.go.wait(60.0)
        return call(given)


def test_a_slow_candidate_costs_the_caller_nothing_and_what_it_missed_is_counted_and_said(world: World) -> None:
    stuck = Stuck(world.candidate)
    world.begin()
    world.models.score([0.0] * 5)
    assert stuck.entered.wait(90.0)
    for row in rows(1500).tolist():
        world.models.score(row)
    stuck.go.set()
    assert world.models.settle(60.0)
    world.models.end_trial()

    assert world.trial.both + world.trial.shed == 1501
    assert world.trial.both == shadow_module.MAX_ROWS
    assert "477 rows were not compared, the device was too busy" in world.trial.verdict(0.0)[1]
    counts = world.models.take_windows(1)[0].body.shadow
    assert counts is not None
    assert (counts.offered, counts.shed) == (1501, 477)
    assert world.models.rows == 1501


def test_a_candidate_that_hangs_holds_up_neither_the_rows_nor_the_end_of_its_trial(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_module, "JOIN_S", 0.1)
    stuck = Stuck(world.candidate)
    world.begin()
    world.models.score([0.0] * 5)
    assert stuck.entered.wait(90.0)

    with pytest.raises(ArtifactError, match="does not come back from a row"):
        world.models.install(world.candidate)
    assert world.models.running_digest() == world.a.digest
    world.models.end_trial()
    assert world.models.score([0.0] * 5).digest == world.models.running.digest  # type: ignore[union-attr]
    stuck.go.set()


def test_a_batch_larger_than_the_room_is_compared_in_part(world: World) -> None:
    world.begin()
    world.models.score_batch(rows(3000))
    assert world.models.settle(60.0)
    world.models.end_trial()

    assert (world.trial.both, world.trial.shed) == (shadow_module.MAX_ROWS, 3000 - shadow_module.MAX_ROWS)


def test_a_model_that_only_answers_who_asks_for_it_is_in_no_trial_and_counts_its_own_rows(world: World, tmp_path: Path) -> None:
    earlier = Scorer.open(make_bundle(tmp_path / "c", weights(3)))
    world.begin()
    world.models.keep_earlier(earlier)
    for row in rows(10).tolist():
        assert world.models.score(row, made_for=earlier).digest == earlier.digest
    world.models.score_batch(rows(5), made_for=earlier)
    world.models.score([0.0] * 5)
    assert world.models.settle(30.0)

    assert (world.trial.both, world.models.rows) == (1, 16)
    counted = {window.body.bundle_digest: window.body.answered for window in world.models.take_windows(1)}
    assert counted == {world.a.digest: 1, earlier.bundle.digest: 15}
    world.models.install(Scorer.open(world.b))
    with pytest.raises(ModelSwapped):
        world.models.score([0.0] * 5, made_for=earlier)


def test_a_candidate_that_is_installed_counts_no_row_twice(world: World) -> None:
    world.begin()
    for row in rows(100).tolist():
        world.models.score(row)
    world.models.install(world.candidate)
    for row in rows(7).tolist():
        world.models.score(row)

    windows = {window.body.bundle_digest: window.body for window in world.models.take_windows(1)}
    assert {digest: body.answered for digest, body in windows.items()} == {world.a.digest: 100, world.b.digest: 7}
    counts = windows[world.a.digest].shadow
    assert counts is not None
    assert counts.offered == counts.compared + counts.shed == 100


def test_the_first_model_of_a_device_answers_on_trial_by_itself(world: World) -> None:
    models = Answering()
    models.begin_trial(world.candidate, world.trial)
    for row in rows(12).tolist():
        models.score(row)
    models.score_batch(rows(5))

    assert (world.trial.rows, world.trial.both, world.trial.shed) == (17, 0, 0)
    assert Trial(QUICK, 0.0, compared=False, rows=17).verdict(1.0)[0] is TrialVerdict.OK
    assert models.take_windows(1)[0].body.shadow is None
    models.close()


def test_swaps_under_load_lose_and_double_no_row(world: World) -> None:
    stop, errors = threading.Event(), []

    def ask() -> None:
        x = rows(64).tolist()
        while not stop.is_set():
            for row in x:
                try:
                    world.models.score(row)
                except Exception as err:
                    errors.append(err)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    offered = 0
    for i in range(12):
        candidate = Scorer.open(world.b if i % 2 else world.a)
        trial = Trial(QUICK, 0.0, compared=True)
        world.models.begin_trial(candidate, trial)
        assert world.models.settle(60.0) or world.models.trial is trial
        world.models.install(candidate)
        offered += trial.both + trial.shed
    stop.set()
    for thread in threads:
        thread.join()

    windows = world.models.take_windows(1)
    assert errors == []
    assert sum(window.body.answered for window in windows) == world.models.rows
    assert sum(window.body.shadow.offered for window in windows if window.body.shadow) == offered
