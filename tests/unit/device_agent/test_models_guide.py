"""The lines of docs/scoring.md about MQTT and about two models do what the page says."""

import itertools
import os
import re
import shlex
from pathlib import Path

import pytest

from device_agent import Scorer
from device_agent.doors.answering import Answering
from tests.unit.device_agent.agent_world import make_bundle, mosquitto, weights
from tests.unit.device_agent.mqtt_world import IN, MINE, OUT, Caller, opened

GUIDE = (Path(__file__).resolve().parents[3] / "docs" / "scoring.md").read_text()
SENT = [shlex.split(line) for line in re.findall(r"^    (mosquitto_(?:pub|rr) .+)$", GUIDE, flags=re.MULTILINE)]


@pytest.mark.broker
def test_what_the_lines_send_is_answered(tmp_path: Path) -> None:
    models = Answering()
    models.install(Scorer.open(make_bundle(tmp_path / "bundle", weights(1))))
    assert len(SENT) == 3
    with mosquitto(tmp_path / "b") as (_, port, _):
        door = opened(models, port)
        with Caller(port) as caller:
            for words in SENT:
                given = dict(itertools.pairwise(words))
                assert given["-t"] == IN
                more = {"ResponseTopic": given["-e"], "CorrelationData": b"42"} if "-e" in given else {}
                assert caller.ask(given["-m"].encode(), **more)["status"] == "ok"
        door.close()
    assert [topic for topic, *_ in caller.got] == [OUT, OUT, MINE]


def test_the_example_of_two_models_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_bundle(tmp_path / "bundle", weights(1))
    make_bundle(tmp_path / "other", weights(2))
    monkeypatch.chdir(tmp_path)
    found = re.findall(r"^```python\n(.+?)^```$", GUIDE[GUIDE.index("**Sharing the rows**") :], flags=re.MULTILINE | re.DOTALL)
    (example,) = found
    names: dict[str, object] = {}
    exec(compile(example, os.fspath(tmp_path / "example.py"), "exec"), names)  # noqa: S102  # our own page

    models = names["models"]
    assert isinstance(models, Answering)
    assert (models.rows, models.split) == (1, None)
    models.close()
