"""One scorer among several: threads, forked children, and a swap of bundles under load."""

import gc
import json
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from device_agent import Scorer
from device_agent.doors.answering import Answering
from edgefleet.errors import ConfigError
from edgefleet.statistics import InputStatistics
from tests.unit.device_agent.bundles import FEATURES, forest_bundle, logistic_bundle

# A parent that scores on other threads while it forks, so that locks are held in that moment, 20 times.
_FORKS = """
import json, os, sys, threading
import numpy as np
from device_agent import Scorer
from edgefleet.errors import EdgefleetError

folder, gone = sys.argv[1], sys.argv[2] == "gone"
scorer = Scorer.open(folder)
rows = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
before = scorer.score(rows[0])
expected = before.margin
stop = threading.Event()

def busy():
    while not stop.is_set():
        scorer.score_batch(rows)
        scorer.score(rows[1])

threads = [threading.Thread(target=busy) for _ in range(2)]
for thread in threads:
    thread.start()
if gone:
    for file in os.listdir(folder):
        os.unlink(os.path.join(folder, file))
answers = []
for _ in range(20):
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            margin = scorer.score(rows[0]).margin
            batch = float(scorer.score_batch(rows[:1]).margin[0])
            told = scorer.take_window()
            said = {"margin": margin, "batch": batch, "answered": told.body.answered, "outlier": before.outlier}
        except EdgefleetError as err:
            said = {"error": type(err).__name__}
        os.write(send, json.dumps(said).encode())
        os._exit(0)
    os.close(send)
    answers.append(json.loads(os.read(receive, 4096)))
    os.close(receive)
    os.waitpid(child, 0)
stop.set()
for thread in threads:
    thread.join()
parent = scorer.score(rows[0]).margin
scorer.close()
child = os.fork()
if child == 0:
    try:
        scorer.score(rows[0])
    except EdgefleetError as err:
        os._exit(7)
    os._exit(1)
closed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps({"expected": expected, "parent": parent, "answers": answers, "closed": closed}))
"""


def forks(folder: Path, what: str) -> dict[str, object]:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _FORKS, str(folder), what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_forked_child_opens_the_bundle_again_and_counts_its_own_rows_only(tmp_path: Path) -> None:
    said = forks(forest_bundle(tmp_path).folder, "there")
    assert said["parent"] == said["expected"]
    assert said["answers"] == [{"margin": said["expected"], "batch": said["expected"], "answered": 2, "outlier": None}] * 20
    assert said["closed"] == 7  # what was closed before the fork stays closed


def test_a_forked_child_whose_bundle_has_gone_says_so(tmp_path: Path) -> None:
    said = forks(forest_bundle(tmp_path).folder, "gone")
    assert said["answers"] == [{"error": "ArtifactError"}] * 20
    assert said["parent"] == said["expected"]


def test_four_threads_count_every_row_exactly(tmp_path: Path) -> None:
    made = forest_bundle(tmp_path)
    alone = InputStatistics.empty(made.reference)
    for _ in range(4):
        alone.update(made.x, made.reference)

    def work(scorer: Scorer, turn: int) -> None:
        if turn % 2:
            scorer.score_batch(made.x)
        else:
            for row in made.x:
                scorer.score(row)

    with Scorer.open(made.folder) as scorer:
        threads = [threading.Thread(target=work, args=(scorer, turn)) for turn in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        told = scorer.take_window()
    assert told is not None
    seen = InputStatistics.from_bytes(told.body.statistics)
    np.testing.assert_array_equal(seen.counts, alone.counts)
    np.testing.assert_array_equal(seen.sketch, alone.sketch)
    np.testing.assert_allclose(seen.total, alone.total, rtol=1e-12, atol=1e-9)
    assert told.body.answered == seen.rows == 4 * len(made.x)


def test_swapping_bundles_under_load_fails_no_request_and_mixes_no_digests(tmp_path: Path) -> None:
    folders = [forest_bundle(tmp_path / "a").folder, logistic_bundle(tmp_path / "b", columns=3).folder]
    row = np.full(FEATURES, 0.3, np.float32)
    right = {}
    for folder in folders:
        with Scorer.open(folder) as scorer:
            right[scorer.digest] = scorer.score(row).probabilities.tolist()  # type: ignore[union-attr]
    models, stop, wrong, seen = Answering(), threading.Event(), [], set()
    models.install(Scorer.open(folders[0]))

    def ask() -> None:
        while not stop.is_set():
            try:
                score = models.score(row)
            except Exception as err:
                wrong.append(repr(err))
                return
            seen.add(score.digest)
            if score.probabilities is None or score.probabilities.tolist() != right[score.digest]:
                wrong.append(score.digest)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(1, 21):
        models.install(Scorer.open(folders[turn % 2]))
    stop.set()
    for thread in threads:
        thread.join()
    windows = models.take_windows(0)
    answered = {window.body.bundle_digest for window in windows}
    assert wrong == []
    assert seen == set(right)
    assert len(answered) == 2
    assert sum(window.body.answered for window in windows) == models.rows
    models.close()


def test_a_closed_scorer_refuses_rows_and_batches_and_still_gives_its_window(tmp_path: Path) -> None:
    made = forest_bundle(tmp_path)
    scorer = Scorer.open(made.folder)
    scorer.score(made.x[0])
    scorer.close()
    for call in (lambda: scorer.score(made.x[0]), lambda: scorer.score_batch(made.x[:2]), lambda: scorer.stream().push(made.x[0])):
        with pytest.raises(ConfigError, match="the scorer is closed"):
            call()
    assert scorer.take_window() is not None


def test_margins_asked_of_a_scorer_that_was_closed_meanwhile_are_a_config_error(tmp_path: Path) -> None:
    scorer = Scorer.open(forest_bundle(tmp_path).folder)
    scorer.close()

    with pytest.raises(ConfigError, match="the scorer is closed"):
        scorer._locked_margins(np.zeros((1, 5), np.float32))


class Weighed(list[object]):
    """A row that can be asked for without being held."""


def test_a_refusal_of_a_batch_keeps_no_row_in_memory(tmp_path: Path) -> None:
    row = Weighed(["x"] * 5)
    there = weakref.ref(row)
    gc.disable()
    try:
        with Scorer.open(forest_bundle(tmp_path).folder) as scorer:
            scores = scorer.score_batch([row])
        del row
        assert there() is None
    finally:
        gc.enable()

    assert scores.rejected[0].reason == "type"
