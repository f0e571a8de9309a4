"""The MQTT door on the fleet's own broker: a device's scoring topics are its own, and the link does not notice the door."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgefleet.topics import score_topic
from fleet_server.broker import Broker, open_broker
from fleet_server.passwords import mosquitto_line
from tests.unit.device_agent.agent_world import DEVICE, blob_server, enroll, eventually, make_bundle, weights
from tests.unit.device_agent.mqtt_world import Caller
from tests.unit.device_agent.test_update_updater import ALONE

pytestmark = pytest.mark.broker
ROW = [0.5, 1.0, -1.0, 0.0, 2.0]
PASSWORD = "s3"
IN, OUT = score_topic(DEVICE, "in"), score_topic(DEVICE, "out")


def broker_with_accounts(folder: Path) -> Broker:
    broker = open_broker("mosquitto", folder, PASSWORD)
    assert broker.passwords is not None
    assert broker.pid_file is not None
    with broker.passwords.open("a") as stream:
        for name in (DEVICE, "press-8"):
            stream.write(mosquitto_line(name, f"of-{name}"))
    eventually("the broker's process id", lambda: broker.pid_file is not None and broker.pid_file.is_file())
    os.kill(int(broker.pid_file.read_text()), signal.SIGHUP)
    return broker


def test_an_agent_answers_on_its_own_topics_and_other_devices_neither_ask_nor_listen(tmp_path: Path) -> None:
    with broker_with_accounts(tmp_path / "broker") as broker, blob_server() as blobs:
        port = int(broker.url.rpartition(":")[2])
        bundle = make_bundle(tmp_path / "a", weights(1))
        blobs.add(bundle)
        account = {"mqtt_username": DEVICE, "mqtt_password": f"of-{DEVICE}"}
        enrolled = enroll(tmp_path / "device", blobs.url, broker.url, **account)
        command = [sys.executable, "-m", "edgefleet", "agent", "run", "--dir", str(enrolled.folder), "--mqtt-door", "fleet"]
        with (tmp_path / "log").open("w") as log:
            agent = subprocess.Popen(command, stderr=log, env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])})
        try:
            with (
                Caller(port, topics=(OUT,), account=(DEVICE, f"of-{DEVICE}")) as mine,
                Caller(port, topics=(OUT, "ef/v1/d/+/score/+"), account=("press-8", "of-press-8")) as foreign,
                Caller(port, topics=(OUT,), account=("fleet-server", PASSWORD)) as server,
            ):
                server.send(enrolled.desired(bundle.digest, ALONE), topic=f"ef/v1/d/{DEVICE}/desired", retain=True)
                eventually("the door", lambda: f"listening on {IN}" in (tmp_path / "log").read_text(), 60.0)
                eventually("the first answer", lambda: mine.ask({"row": ROW, "id": 1}, topic=IN)["status"] == "ok", 60.0)
                asked = len(mine.got)
                foreign.send({"row": ROW, "id": "foreign"}, topic=IN)
                answer = mine.ask({"row": ROW, "id": 2}, topic=IN)
                assert answer["id"] == 2
                eventually("the same answers for the server", lambda: len(server.got) == asked + 1)
                assert len(mine.got) == asked + 1
                assert foreign.got == []
                mine.send(ROW, topic=IN, ResponseTopic="plant/elsewhere")  # the device's account may not write there

            def health() -> dict[str, Any]:
                found = json.loads((enrolled.folder / "health.json").read_text())
                assert isinstance(found, dict)
                return found

            eventually("the refused answer in health.json", lambda: health()["doors"].get("mqtt", {}).get("unsent") == 1)
            told = health()["doors"]["mqtt"]
            assert told["offered"] == told["scored"] + told["rejected"] + told["shed"]
            assert told["scored"] == 3
            assert health()["connected"]
            assert health()["stopped_threads"] == []
        finally:
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(90) == 0
        text = (tmp_path / "log").read_text()
        assert text.count(f"listening on {IN}") == 1
        assert "connection to the broker lost" not in text
