"""Which broker `--broker` gets, and what is said when there is none."""

import shutil
from pathlib import Path

import pytest

from edgefleet.errors import MissingPartError, TransportError
from fleet_server.broker import find_mosquitto, open_broker


@pytest.mark.broker
def test_mosquitto_is_found_where_debian_puts_it_although_path_lacks_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if shutil.which("mosquitto", path="/usr/sbin") is None:
        pytest.skip("this machine keeps Mosquitto elsewhere than in /usr/sbin, so there is nothing to find beside PATH")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_mosquitto() == "/usr/sbin/mosquitto"
    with open_broker("auto", tmp_path / "broker", "secret") as broker:
        assert broker.kind == "mosquitto"
        assert broker.alive()
    assert not broker.alive()


def test_without_any_broker_the_install_line_is_the_answer(tmp_path: Path) -> None:
    with pytest.raises(MissingPartError, match="apt-get install mosquitto, or pip install"):
        open_broker("carrier-pigeon", tmp_path, "secret")


def test_a_given_broker_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match=r"no MQTT broker answers at mqtt://127\.0\.0\.1:9"):
        open_broker("mqtt://127.0.0.1:9", tmp_path, "secret")


@pytest.mark.broker
def test_the_files_of_a_private_broker_are_for_its_owner_only(tmp_path: Path) -> None:
    with open_broker("mosquitto", tmp_path, "secret"):
        modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("passwords", "acl", "mosquitto.conf")}
        assert set(modes.values()) == {0o600}
        assert "secret" not in (tmp_path / "passwords").read_text()
        assert "127.0.0.1" in (tmp_path / "mosquitto.conf").read_text()
