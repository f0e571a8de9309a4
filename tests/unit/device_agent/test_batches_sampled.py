"""Rows of batches are sampled for explanations like single rows: every k-th row overall, later, within the budget, counted or skipped."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device_agent import Scorer
from device_agent.agent import Agent
from device_agent.config import AgentConfig
from device_agent.doors.http.settings import HttpSettings
from device_agent.telemetry.samples import WAITING_VALUES
from edgefleet.errors import ArtifactError, ConfigError, RowRejected
from edgefleet.statistics import InputStatistics
from tests.unit.device_agent.agent_world import enroll, make_bundle, rows, weights
from tests.unit.device_agent.http_world import World, matrix
from tests.unit.device_agent.test_explaining_apart import SlowExplainer

FEATURES = 5


@contextmanager
def agent(folder: Path, **changes: Any) -> Iterator[Agent]:
    """An agent that is offline, with a model; its threads do not run, so that the test says when the reports look."""
    settings: dict[str, Any] = {"explain_every": 10, "explain_cpu_fraction": 1.0} | changes
    one = Agent(AgentConfig(dir=enroll(folder / "device").folder, **settings))
    one.models.install(Scorer.open(make_bundle(folder / "bundle", weights(1))))
    try:
        yield one
    finally:
        one.models.close()
        one._lock.release()


def look(one: Agent) -> None:
    """Let the reports catch up with all rows that wait, however many looks that takes."""
    while one._reports.samples._waiting:
        one._reports.samples.catch_up()


def contributions(scorer: Scorer, row: NDArray[np.float32]) -> NDArray[np.float64]:
    explanation = scorer.explain(row).explanation
    assert explanation is not None
    return np.asarray(explanation.contributions, np.float64)


def test_every_kth_row_is_explained_whether_it_came_alone_or_in_a_batch(tmp_path: Path) -> None:
    x = rows(60)
    with agent(tmp_path) as one:
        running = one.models.running
        assert running is not None
        for row in x[:7]:
            one.score(row)
        one.score_batch(x[7:32])
        one.score_batch(x[32:35].tolist())
        one.score_batch([])
        for row in x[35:37]:
            one.score(row)
        one.score_batch(x[37:])
        look(one)
        sums = one._reports.samples.explaining.take(running.digest)
        expected = [contributions(running, row) for row in x[::10]]
        (window,) = one.models.take_windows(1)
    assert sums is not None
    assert (sums.rows, sums.skipped) == (6, 0)
    np.testing.assert_allclose(sums.total, np.sum(expected, axis=0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(sums.absolute, np.abs(expected).sum(axis=0), rtol=1e-9, atol=1e-12)
    # Neither the explanations nor the calls above are traffic.
    assert InputStatistics.from_bytes(window.body.statistics).rows == window.body.answered == 60


def test_the_caller_s_buffer_may_be_filled_anew_at_once(tmp_path: Path) -> None:
    x = rows(40)
    with agent(tmp_path) as one:
        running = one.models.running
        assert running is not None
        buffer = x.copy()
        one.score_batch(buffer)
        buffer[:] = 0.0
        look(one)
        sums = one._reports.samples.explaining.take(running.digest)
        whole = np.sum([contributions(running, row) for row in x[::10]], axis=0)
    assert sums is not None
    np.testing.assert_allclose(sums.total, whole, rtol=1e-9, atol=1e-12)


def test_what_the_budget_does_not_allow_waits_and_what_does_not_fit_is_skipped(tmp_path: Path) -> None:
    x = rows(10_000)
    with agent(tmp_path, explain_every=1, explain_cpu_fraction=0.001) as one:
        samples = one._reports.samples
        for _ in range(3):
            one.score_batch(x)
            samples.catch_up()
        explained, skipped, waiting = samples.explaining.explained, samples.explaining.skipped, len(samples._waiting)
    # A tenth of a millisecond may be spent at a look: a handful of explanations at most.
    assert 1 <= explained < 100
    assert waiting <= WAITING_VALUES // FEATURES
    assert skipped > 10_000
    assert explained + skipped + waiting == 30_000


def test_refused_rows_of_a_batch_are_not_explained(tmp_path: Path) -> None:
    x = rows(30)
    x[10, 0] = np.inf
    with agent(tmp_path) as one:
        answers = one.score_batch(x)
        look(one)
        explained = one._reports.samples.explaining.explained
    assert list(answers.rejected) == [10]
    assert explained == 2


def test_rows_whose_model_has_gone_are_skipped(tmp_path: Path) -> None:
    with agent(tmp_path) as one:
        one.score_batch(rows(30))
        one.models.install(Scorer.open(make_bundle(tmp_path / "other", weights(2))))
        look(one)
        explaining = one._reports.samples.explaining
        assert (explaining.explained, explaining.skipped) == (0, 3)


def test_without_a_rate_no_row_of_a_batch_waits(tmp_path: Path) -> None:
    with agent(tmp_path, explain_every=0) as one:
        one.score_batch(rows(1000))
        assert len(one._reports.samples._waiting) == 0


def test_a_row_that_is_no_traffic_is_answered_as_one_that_is(tmp_path: Path) -> None:
    row = rows(1)[0]
    with Scorer.open(make_bundle(tmp_path / "bundle", weights(1))) as scorer:
        aside, counted = scorer.explain(row), scorer.score(row, explain=True)
        with pytest.raises(RowRejected, match="is not accepted"):
            scorer.explain([float("inf")] * FEATURES)
        told = scorer.take_window()
    assert (aside.label, aside.score, aside.digest) == (counted.label, counted.score, counted.digest)
    assert aside.explanation is not None
    assert counted.explanation is not None
    np.testing.assert_array_equal(aside.explanation.contributions, counted.explanation.contributions)
    assert told is not None
    assert (told.body.answered, told.body.rejected) == (1, {})


def test_an_explanation_of_a_closed_scorer_or_one_without_explainer_is_refused(tmp_path: Path) -> None:
    scorer = Scorer.open(make_bundle(tmp_path / "bundle", weights(1)))
    scorer.close()
    with pytest.raises(ConfigError, match="closed"):
        scorer.explain(rows(1)[0])
    with Scorer.open(make_bundle(tmp_path / "bare", weights(1), explain=False)) as bare, pytest.raises(ConfigError, match="no explainer"):
        bare.explain(rows(1)[0])


def test_a_row_of_the_http_door_is_answered_before_its_explanation_is_made(tmp_path: Path) -> None:
    with agent(tmp_path, explain_every=1, http=HttpSettings(port=0)) as one:
        running = one.models.running
        assert running is not None
        expected = contributions(running, rows(1)[0])
        slow = SlowExplainer(running)
        assert one._http is not None
        one._http.start()
        door = World(one.models, one._http, int(one._http.url.rpartition(":")[2]))

        assert door.infer(matrix(rows(1))).status == 200  # while the explainer still waits for its word
        assert not slow.begun.is_set()
        slow.may_end.set()
        look(one)

        sums = one._reports.samples.explaining.take(running.digest)
        one._http.close()
    assert sums is not None
    np.testing.assert_allclose(sums.total, expected, rtol=1e-9, atol=1e-12)


class BrokenExplainer:
    """Fails on every row, as one does whose graph the runtime cannot run."""

    def explain(self, *_: object) -> None:
        raise ArtifactError("the explainer failed")


def test_a_failing_explanation_costs_an_answer_only_where_the_caller_asked_for_it(tmp_path: Path) -> None:
    with agent(tmp_path, explain_every=1) as one:
        running = one.models.running
        assert running is not None
        running._explainer = BrokenExplainer()  # type: ignore[assignment]

        unasked = one.score(rows(1)[0])

        assert unasked.label in {"low", "mid", "high"}
        assert unasked.explanation is None
        assert one._reports.samples.explaining.skipped == 1
        with pytest.raises(ArtifactError, match="the explainer failed"):
            one.score(rows(1)[0], explain=True)
