"""`edgefleet agent serve` and `edgefleet agent run --http`, as the processes that people start."""

import json
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from device_agent.agent import Agent
from device_agent.config import AgentConfig
from device_agent.doors.http.settings import HttpSettings
from device_agent.scorer import Scorer
from edgefleet.desired import DesiredModel
from edgefleet.errors import ConfigError
from tests.unit.device_agent.agent_world import PROJECT, QUICK, enroll, eventually, make_bundle, mosquitto, rows, weights
from tests.unit.device_agent.http_world import matrix
from tests.unit.device_agent.whole_agent import COMMAND, ENVIRONMENT


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The address that `agent serve` prints, and its process."""
    child = subprocess.Popen([*COMMAND, "serve", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        yield child.stdout.readline().strip(), child
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        child.stdout.close()
        child.stderr.close()


def score(url: str) -> list[str]:
    body = json.dumps({"inputs": [matrix(rows(2))]}).encode()
    with urllib.request.urlopen(f"{url}/v2/models/tiny/infer", body, timeout=60) as reply:  # noqa: S310  # our own loopback address
        found: list[str] = json.loads(reply.read())["outputs"][0]["data"]
    return found


def test_serve_scores_a_bundle_without_a_fleet_and_stops_cleanly(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", weights(1))
    with Scorer.open(bundle) as scorer:
        expected = scorer.score_batch(rows(2)).label.tolist()

    with serving("--bundle", str(tmp_path / "bundle"), "--http", "0") as (url, child):
        assert score(url) == expected
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0
        assert child.stderr is not None
        assert child.stderr.read() == ""


def test_serve_refuses_to_be_open_to_others_without_tls_and_token(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", weights(1))

    with serving("--bundle", str(tmp_path / "bundle"), "--http", "0", "--http-host", "0.0.0.0") as (_, child):  # noqa: S104  # refused
        assert child.wait(60) == 3
        assert child.stderr is not None
        assert "needs --http-tls-cert, --http-tls-key, --http-token-file" in child.stderr.read()


def test_serve_refuses_a_model_that_needs_more_memory_than_it_may(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", weights(1))

    with serving("--bundle", str(tmp_path / "bundle"), "--http", "0", "--memory-mb", "0.0001") as (_, child):
        assert child.wait(60) == 3
        assert child.stderr is not None
        assert "the budget is 100)" in child.stderr.read()


def test_the_score_command_gets_from_the_door_what_it_answers_itself(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", weights(1))
    requests = [json.dumps({"id": str(i), "inputs": [matrix(rows(i + 1))]}) for i in range(3)]
    (tmp_path / "requests.ndjson").write_text("\n".join(requests) + "\n")

    def outputs(*where: str) -> list[dict[str, list[object]]]:
        command = [*COMMAND, "score", *where, "--format", "oip", str(tmp_path / "requests.ndjson")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
        return [{o["name"]: o["data"] for o in json.loads(line)["outputs"]} for line in done.stdout.splitlines()]

    with serving("--bundle", str(tmp_path / "bundle"), "--http", "0") as (url, _):
        by_url = outputs("--url", url)

    by_bundle = outputs("--bundle", str(tmp_path / "bundle"))
    assert [set(one) for one in by_url] == [set(one) for one in by_bundle]
    assert [one["label"] for one in by_url] == [one["label"] for one in by_bundle]
    for one, other in zip(by_url, by_bundle, strict=True):
        assert np.array(one["probabilities"], np.float32).tolist() == np.array(other["probabilities"], np.float32).tolist()


def test_the_door_s_options_without_a_port_are_a_usage_error(tmp_path: Path) -> None:
    enroll(tmp_path / "device")
    options = ["--dir", str(tmp_path / "device"), "--http-token-file", str(tmp_path / "token")]

    done = subprocess.run([*COMMAND, "run", *options], capture_output=True, text=True, timeout=60, env=ENVIRONMENT)

    assert (done.returncode, "without --http PORT" in done.stderr) == (2, True)


@pytest.mark.broker
def test_an_agent_s_door_scores_with_its_model_names_the_release_and_shows_its_state(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", weights(1))
    with mosquitto(tmp_path / "broker") as (broker_url, _, _):
        enrolled = enroll(tmp_path / "device", broker_url=broker_url)
        agent = Agent(AgentConfig(dir=tmp_path / "device", heartbeat_s=0.3, http=HttpSettings(port=0)))
        agent.start()
        try:
            eventually("the agent is connected", lambda: agent._link.connected)
            agent._models.install(Scorer.open(bundle))
            wanted = DesiredModel(bundle_digest=bundle.digest, release="r", release_counter=42, rollout="o", nonce="n", trial=QUICK)
            agent._updater.director.accept(enrolled.desired(bundle.digest, models={PROJECT: wanted}))
            url = str(agent.http_url)

            assert len(score(url)) == 2
            with urllib.request.urlopen(f"{url}/v2/models/tiny", timeout=60) as reply:  # noqa: S310  # our own loopback address
                assert json.loads(reply.read())["versions"] == ["42"]
            with urllib.request.urlopen(url, timeout=60) as reply:  # noqa: S310  # the same
                page = reply.read().decode()
            assert "press-7" in page
            assert "<dt>Fleet</dt><dd>connected</dd>" in page
            assert agent.score(rows(1)[0]).label is not None
            assert agent._models.rows == 3
            assert agent._stopped_threads() == []
        finally:
            agent.close()


def test_an_agent_that_could_not_be_made_lets_go_of_its_folder(tmp_path: Path) -> None:
    enroll(tmp_path / "device")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(ConfigError, match="choose another port"):
            Agent(AgentConfig(dir=tmp_path / "device", http=HttpSettings(port=taken.getsockname()[1])))

        agent = Agent(AgentConfig(dir=tmp_path / "device", http=HttpSettings(port=0)))
        agent.close()
    with (tmp_path / "device" / "identity.json").open() as other:  # which gets the number of a file that the agent has closed
        agent.close()
        assert json.load(other)["project"] == PROJECT
