"""Models are swapped under load: no request is lost, none is answered by two models, and the sums are right."""

import http.client
import json
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from device_agent.doors.answering import Answering
from device_agent.doors.http.counters import Tally
from device_agent.doors.http.exchange import Refused
from device_agent.doors.http.rows import MAX_SWAPS, answer_rows, retry_swapped
from device_agent.scorer import Scorer
from device_agent.update.trial import Trial
from edgefleet.bundle import Bundle
from edgefleet.errors import ModelSwapped
from tests.unit.device_agent.agent_world import QUICK, make_bundle
from tests.unit.device_agent.agent_world import rows as more_rows
from tests.unit.device_agent.agent_world import weights as weights_of
from tests.unit.device_agent.http_world import World, matrix, rows, world

SWAPS = 40


def turned(folder: Path, made: Bundle) -> Bundle:
    """The same graph for columns in the opposite order: whoever puts rows in the order of the other model answers wrongly."""
    manifest = msgspec.structs.replace(made.manifest, inputs=made.manifest.inputs[::-1])
    from edgefleet.manifest import manifest_bytes

    return Bundle.from_manifest(manifest_bytes(manifest), made.locate)


@pytest.mark.parametrize("n", [1, 3, 1500])
def test_swaps_under_load_lose_no_request_and_mix_no_models(tmp_path: Path, n: int) -> None:
    made = make_bundle(tmp_path / "a", weights_of(1))
    bundles = [made, turned(tmp_path, made)]
    x = rows(n)
    columns = [{"name": f"f{i}", "datatype": "FP32", "shape": [n], "data": x[:, i].astype(float).tolist()} for i in range(5)]
    with Scorer.open(bundles[0]) as one, Scorer.open(bundles[1]) as other:
        right = [one.score_batch(x).label.tolist(), other.score_batch(x[:, ::-1].copy()).label.tolist()]
    with world(None) as served:
        served.models.install(Scorer.open(bundles[0]))
        done = threading.Event()
        answers: list[Any] = []
        clients = [threading.Thread(target=ask_until, args=(served, {"inputs": columns}, done, answers)) for _ in range(3)]
        for client in clients:
            client.start()
        for swap in range(SWAPS):
            served.models.install(Scorer.open(bundles[(swap + 1) % 2]))
        done.set()
        for client in clients:
            client.join()

        assert len(answers) > 3
        assert [a for a in answers if a not in right] == []
        counts = served.door.counts()
        assert (counts.offered, counts.scored, served.balanced()) == (n * len(answers), n * len(answers), True)


def ask_until(served: World, request: Any, done: threading.Event, answers: list[Any]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    body = json.dumps({**request, "outputs": [{"name": "label"}]})
    while not done.is_set():
        connection.request("POST", f"/v2/models/{'tiny'}/infer", body)
        reply = connection.getresponse()
        content = json.loads(reply.read())
        answers.append(content["outputs"][0]["data"] if reply.status == 200 else content)
    connection.close()


def test_rows_made_for_another_model_are_not_scored_and_not_counted(tmp_path: Path) -> None:
    models = Answering()
    old, new = (Scorer.open(make_bundle(tmp_path / str(seed), weights_of(seed))) for seed in (1, 2))
    models.install(old)
    models.install(new)
    tally = Tally()

    for n in (1, 3):
        with pytest.raises(ModelSwapped):
            answer_rows(models, more_rows(n), tally, 10.0, old)

    assert (models.rows, models.rejected, models.unanswered, models.rows_in_window, tally.scored) == (0, 0, 0, 0, 0)
    assert len(answer_rows(models, more_rows(3), tally, 10.0, new)) == 3
    models.close()


def test_swaps_without_end_are_a_503_and_not_a_loop() -> None:
    tried = []

    def attempt() -> None:
        tried.append(1)
        raise ModelSwapped("again")

    with pytest.raises(Refused, match=f"swapped {MAX_SWAPS} times"):
        retry_swapped(attempt)
    assert len(tried) == MAX_SWAPS


def test_a_batch_counts_for_the_trial_as_its_rows_would_one_by_one(tmp_path: Path) -> None:
    x = more_rows(40)
    x[3, 0] = np.nan
    trials = []
    for batch in (False, True):
        models = Answering()
        models.install(Scorer.open(make_bundle(tmp_path / f"run-{batch}", weights_of(1))))
        trial = Trial(QUICK, 0.0, compared=True)
        models.begin_trial(Scorer.open(make_bundle(tmp_path / f"new-{batch}", weights_of(2))), trial)
        if batch:
            assert list(models.score_batch(x).rejected) == [3]
        else:
            for row in x:
                try:
                    models.score(row)
                except Exception:  # noqa: S112  # the refused row, which is counted
                    continue
        assert models.settle(30.0)
        trials.append((trial.rows, trial.both, trial.agreed, models.rows, models.rejected, models.rows_in_window))
        models.end_trial()
        models.close()

    assert trials[0] == trials[1]
    assert 0 < trials[0][2] < 39  # they agree on some


def test_rows_are_answered_by_the_first_model_while_it_is_on_trial(tmp_path: Path) -> None:
    with world(None) as one:
        scorer, trial = Scorer.open(make_bundle(tmp_path, weights_of(1))), Trial(QUICK, 0.0, compared=False)
        one.models.begin_trial(scorer, trial)

        assert one.ask("GET", "/v2/health/ready").status == 200
        assert one.infer(matrix(more_rows(1))).status == 200
        assert one.infer(matrix(more_rows(4))).status == 200
        assert trial.rows == 5
        one.models.end_trial()
        assert one.infer(matrix(more_rows(1))).status == 503
