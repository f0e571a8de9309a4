"""The search in one process: budget, failures, pruning, cost, and going on where it stood."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from edgefleet.errors import ConfigError, TransportError
from tests.unit.trainer.search_worker import PROBLEM, rows, run
from trainer.candidates import defaults, fit
from trainer.search import SearchResult, search
from trainer.settings import Search


def url(tmp_path: Path, name: str = "search") -> str:
    return f"sqlite:///{tmp_path / name}.db"


def log_loss(probabilities: NDArray[np.float64]) -> float:
    label = rows()[1][200:]
    return float(-np.log(np.maximum(probabilities[np.arange(100), label], 1e-6)).mean())


def searched(storage: str, name: str = "tree", score: Any = log_loss, told: Any = None, **settings: Any) -> SearchResult:
    z, label = rows()
    options = Search(candidates=[name], **{"seed": 11, **settings})
    held = (z[200:], label[200:])
    return search(
        name, (z[:200], label[:200], None), held, PROBLEM, options, lambda predict: score(predict(held[0])), False, storage, name, told
    )


def without_time(result: SearchResult) -> list[dict[str, Any]]:
    return [{key: value for key, value in trial.items() if key != "seconds"} for trial in result.trials]


def test_the_first_trial_is_the_defaults_and_the_best_is_never_worse(tmp_path: Path) -> None:
    result = searched(url(tmp_path), trials=12)

    assert result.trials[0]["parameters"] == defaults("tree", PROBLEM)
    assert result.value == min(trial["value"] for trial in result.trials)
    assert result.value < result.trials[0]["value"]
    assert len({str(trial["parameters"]) for trial in result.trials}) >= 8


def test_the_best_settings_fitted_again_give_the_value_of_their_trial(tmp_path: Path) -> None:
    z, label = rows()
    result = searched(url(tmp_path), trials=6)

    fitted = fit("tree", z[:200], label[:200], PROBLEM, parameters=result.parameters, validation=(z[200:], label[200:]))

    assert log_loss(fitted.predict(z[200:])) == result.value


def test_equal_seeds_search_alike_and_others_do_not(tmp_path: Path) -> None:
    first, again = (searched(url(tmp_path, name), trials=14) for name in "ab")
    other = searched(url(tmp_path, "c"), trials=14, seed=12)

    assert without_time(first) == without_time(again)
    assert without_time(first) != without_time(other)


def test_a_search_in_two_halves_is_the_search_in_one(tmp_path: Path) -> None:
    whole = searched(url(tmp_path, "whole"), trials=16)

    searched(url(tmp_path, "halves"), trials=7)
    halves = searched(url(tmp_path, "halves"), trials=16)

    assert without_time(halves) == without_time(whole)
    assert halves.lost == 0


def test_a_finished_search_runs_no_further_trial(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    first = searched(url(tmp_path), trials=5, told=told.append)

    again = searched(url(tmp_path), trials=5, told=told.append)

    assert [trial["number"] for trial in told] == [0, 1, 2, 3, 4]
    assert again == first


def test_a_failed_trial_is_recorded_and_ends_nothing(tmp_path: Path) -> None:
    calls = 0

    def third_fails(probabilities: NDArray[np.float64]) -> float:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise ZeroDivisionError("the third one")
        return log_loss(probabilities)

    result = searched(url(tmp_path), score=third_fails, trials=6)
    again = searched(url(tmp_path), trials=6)

    assert [trial["state"] for trial in result.trials] == ["complete", "complete", "failed", "complete", "complete", "complete"]
    assert result.trials[2]["reason"] == "ZeroDivisionError: the third one"
    assert result.trials[2]["value"] is None
    assert again == result


def test_a_search_whose_every_trial_fails_says_why_the_first_did(tmp_path: Path) -> None:
    def fails(probabilities: NDArray[np.float64]) -> float:
        raise ValueError("no such metric")

    with pytest.raises(ConfigError, match=r"search of 'tree': all 3 trials failed, the first because: ValueError: no such metric"):
        searched(url(tmp_path), score=fails, trials=3)


def test_a_metric_that_is_no_number_fails_its_trial(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the metric of its answers is nan"):
        searched(url(tmp_path), score=lambda _: float("nan"), trials=1)


def test_rows_that_the_candidate_refuses_stop_the_search_before_it_begins(tmp_path: Path) -> None:
    z, label = rows()
    z[0, 0], options = np.nan, Search(candidates=["svm"], trials=3)

    with pytest.raises(ConfigError, match="add the cleaning step `impute`"):
        search("svm", (z, label, None), (z, label), PROBLEM, options, lambda _: 0.0, False, url(tmp_path), "svm")

    assert not (tmp_path / "search.db").exists()


def test_bad_trials_of_a_boosting_are_pruned_and_are_never_the_best(tmp_path: Path) -> None:
    result = searched(url(tmp_path), "boosting", trials=14, prune=True)
    unpruned = searched(url(tmp_path, "unpruned"), "boosting", trials=14, prune=False)

    states = [trial["state"] for trial in result.trials]
    assert states[:5] == ["complete"] * 5
    assert states.count("pruned") >= 1
    assert len(states) == 14
    assert {trial["state"] for trial in unpruned.trials} == {"complete"}
    assert result.value == min(trial["value"] for trial in result.trials if trial["state"] == "complete")


def test_a_budget_of_seconds_begins_no_trial_after_it(tmp_path: Path) -> None:
    result = searched(url(tmp_path), trials=0, seconds=1e-9)
    both = searched(url(tmp_path, "both"), trials=3, seconds=3600.0)

    assert [trial["number"] for trial in result.trials] == [0]
    assert len(both.trials) == 3


def test_the_time_that_a_killed_search_used_is_not_given_again(tmp_path: Path) -> None:
    used = searched(url(tmp_path), trials=4)
    spent = sum(trial["seconds"] for trial in used.trials)

    resumed = searched(url(tmp_path), trials=9, seconds=spent)

    assert len(resumed.trials) == 4


def test_the_front_holds_what_nothing_beats_in_metric_size_and_time(tmp_path: Path) -> None:
    result = searched(url(tmp_path), "forest", trials=8, objective="metric+cost", parameters={"forest": {"min_samples_leaf": 9}})

    front = [(trial["value"], trial["size_bytes"], trial["latency_us"]) for trial in result.front]
    others = [(trial["value"], trial["size_bytes"], trial["latency_us"]) for trial in result.trials if not trial["pareto"]]
    assert len(front) >= 2
    assert min(trial["value"] for trial in result.trials) in {value for value, _, _ in front}
    assert all(any(np.less_equal(one, other).all() for one in front) for other in others)
    assert not any(np.less_equal(one, other).all() for one in front for other in front if one != other)
    assert {trial["parameters"]["min_samples_leaf"] for trial in result.trials} == {9}


def test_the_result_is_plain_json(tmp_path: Path) -> None:
    result = searched(url(tmp_path), trials=2)

    assert msgspec.json.decode(result.to_json(), type=SearchResult) == result
    assert msgspec.json.decode(result.to_json())["trials"][1]["number"] == 1


def test_a_worker_as_a_function_searches_as_one_in_a_process(tmp_path: Path) -> None:
    assert without_time(run(url(tmp_path, "a"), 4)) == without_time(searched(url(tmp_path, "b"), trials=4))


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("sqlite://", "expected a SQLite file or PostgreSQL"),
        ("mysql+pymysql://u:secret@h/d", r"'mysql\+pymysql://u:\*\*\*@h/d': expected a SQLite file or PostgreSQL"),
        ("no url", "no SQLAlchemy URL"),
        ("env:EDGEFLEET_NO_SUCH_VARIABLE", "the environment variable is not set"),
    ],
)
def test_a_storage_that_cannot_be_used_is_refused_without_its_password(storage: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        searched(storage, trials=1)


def test_a_database_that_does_not_answer_is_said(tmp_path: Path) -> None:

    with pytest.raises(TransportError, match=r"search.storage = .* does not answer"):
        searched(f"postgresql://nobody:secret@/nowhere?host={tmp_path}", trials=1)


def test_the_url_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFLEET_TEST_STORAGE", url(tmp_path))

    searched("env:EDGEFLEET_TEST_STORAGE", trials=1)

    assert (tmp_path / "search.db").exists()


def test_a_wrong_setting_stops_the_search_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'max_depth'"):
        searched(url(tmp_path), trials=2, parameters={"tree": {"maxdepth": 3}})
