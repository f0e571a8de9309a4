"""An explanation that somebody waits for holds up nobody else: rows are answered and models swapped meanwhile."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent import Scorer
from device_agent.doors.answering import Answering
from device_agent.scorer import Score
from device_agent.update.trial import Trial
from edgefleet.errors import ArtifactError, ConfigError, EdgefleetError
from tests.unit.device_agent.agent_world import QUICK, eventually, make_bundle, rows, weights


class SlowExplainer:
    """The model's own explainer, which waits for a word first; or fails."""

    def __init__(self, scorer: Scorer, fails: bool = False) -> None:
        self._own, self._fails = scorer._explainer, fails
        self.begun, self.may_end = threading.Event(), threading.Event()
        scorer._explainer = self  # type: ignore[assignment]

    def explain(self, *arguments: Any) -> Any:
        self.begun.set()
        assert self.may_end.wait(60)
        if self._fails:
            raise ArtifactError("the explainer failed")
        assert self._own is not None
        return self._own.explain(*arguments)


@pytest.fixture
def models(tmp_path: Path) -> Iterator[Answering]:
    one = Answering()
    one.install(Scorer.open(make_bundle(tmp_path / "a", weights(1))))
    yield one
    one.close()


def in_thread(models: Answering) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []

    def ask() -> None:
        try:
            found.append(models.score(rows(1)[0], explain=True))
        except EdgefleetError as err:
            found.append(err)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, found


def test_rows_are_answered_and_the_model_is_swapped_while_an_explanation_is_made(models: Answering, tmp_path: Path) -> None:
    old = models.running
    assert old is not None
    slow = SlowExplainer(old)
    thread, found = in_thread(models)
    assert slow.begun.wait(60)

    assert models.score(rows(1)[0]).digest == old.digest
    models.install(new := Scorer.open(make_bundle(tmp_path / "b", weights(2))))
    assert models.score(rows(1)[0]).digest == new.digest
    assert old.score(rows(1)[0]).digest == old.digest  # not closed: somebody still needs it
    slow.may_end.set()
    thread.join(60)

    (score,) = found
    assert score.digest == old.digest
    assert score.explanation is not None
    eventually("the old model is closed", lambda: _is_closed(old))
    assert models.rows == 3


def test_a_candidate_that_is_let_go_stays_open_for_whoever_waits_for_its_explanation(tmp_path: Path) -> None:
    first = Answering()  # before the first model the candidate answers itself
    candidate = Scorer.open(make_bundle(tmp_path / "b", weights(2)))
    slow = SlowExplainer(candidate)
    first.begin_trial(candidate, Trial(QUICK, 0.0, compared=False))
    thread, found = in_thread(first)
    assert slow.begun.wait(60)

    first.install(Scorer.open(make_bundle(tmp_path / "c", weights(3))))
    first.end_trial()
    slow.may_end.set()
    thread.join(60)

    assert isinstance(found[0], Score)
    assert found[0].explanation is not None
    eventually("the candidate is closed", lambda: _is_closed(candidate))
    first.close()


def test_a_failing_explanation_is_a_row_without_an_answer(models: Answering) -> None:
    assert models.running is not None
    SlowExplainer(models.running, fails=True).may_end.set()

    thread, found = in_thread(models)
    thread.join(60)

    assert isinstance(found[0], ArtifactError)
    assert (models.rows, models.rejected, models.unanswered) == (0, 0, 1)


def test_a_challenger_that_fails_to_explain_costs_nobody_an_answer(models: Answering, tmp_path: Path) -> None:
    challenger = Scorer.open(make_bundle(tmp_path / "b", weights(2)))
    SlowExplainer(challenger, fails=True).may_end.set()
    split = models.begin_split(challenger, 1024, "autumn")

    thread, found = in_thread(models)
    thread.join(60)

    assert models.running is not None
    assert found[0].digest == models.running.digest
    assert found[0].explanation is not None
    assert (split.rows, split.fallbacks, models.rows, models.unanswered) == (1, 1, 1, 0)


def _is_closed(scorer: Scorer) -> bool:
    try:
        scorer.score(rows(1)[0])
    except ConfigError:
        return True
    return False
