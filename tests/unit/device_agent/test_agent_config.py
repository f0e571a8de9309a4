"""The identity folder: complete and of our version, or a clear refusal with the remedy."""

from pathlib import Path
from typing import Any

import pytest

from device_agent.config import AgentConfig, load_identity
from edgefleet.errors import ConfigError
from edgefleet.locks import FolderLock
from tests.unit.device_agent.agent_world import DEVICE, FLEET, enroll


def test_a_folder_that_enroll_wrote_is_read(tmp_path: Path) -> None:
    identity = load_identity(enroll(tmp_path / "device", "http://server:8080/", "mqtt://broker:1884").folder)

    assert (identity.device_id, identity.fleet, identity.server_url) == (DEVICE, FLEET, "http://server:8080")
    assert (identity.broker_host, identity.broker_port) == ("broker", 1884)


@pytest.mark.parametrize("name", ["identity.json", "device.key"])
def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path, name: str) -> None:
    folder = enroll(tmp_path / "device").folder
    (folder / name).unlink()

    with pytest.raises(ConfigError, match=rf"{name}: .*run `edgefleet enroll`"):
        load_identity(folder)
    assert not (folder / name).exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format_version": 2}, "format version 2 is unknown, this agent reads 1"),
        ({"device_id": "a/b"}, "device id 'a/b' is not an identifier"),
        ({"director_key": "12"}, "public key '12' is not 32 bytes"),
        ({"broker_url": "http://x"}, "is not mqtt://host:port"),
        ({"broker_url": "mqtt://x:99999"}, "Port out of range"),
        ({"server_url": "file:///etc"}, "is not http:// or https://"),
        ({"token": 5}, "Expected `str`, got `int`"),
    ],
)
def test_a_wrong_value_is_named_with_the_remedy(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    folder = enroll(tmp_path / "device", **changes).folder if "url" not in str(changes) else _with(tmp_path, changes)

    with pytest.raises(ConfigError, match=f"{said}.*edgefleet enroll"):
        load_identity(folder)


def _with(tmp_path: Path, changes: dict[str, Any]) -> Path:
    return enroll(tmp_path / "device", changes.get("server_url", "http://s"), changes.get("broker_url", "mqtt://b")).folder


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 50_000, b"{" + b" " * 70_000 + b"}", b"\xff\xfe"])
def test_a_damaged_identity_is_refused_and_not_a_crash(tmp_path: Path, content: bytes) -> None:
    folder = enroll(tmp_path / "device").folder
    (folder / "identity.json").write_bytes(content)

    with pytest.raises(ConfigError, match="edgefleet enroll"):
        load_identity(folder)


def test_a_second_agent_on_the_folder_is_told_who_holds_it(tmp_path: Path) -> None:
    first = FolderLock(tmp_path / "lock", "agent")

    with pytest.raises(ConfigError, match=r"another agent \(process \d+\) runs on this folder"):
        FolderLock(tmp_path / "lock", "agent")
    first.release()
    FolderLock(tmp_path / "lock", "agent").release()


def test_the_reconnect_spread_follows_the_heartbeat_up_to_thirty_seconds(tmp_path: Path) -> None:
    assert AgentConfig(dir=tmp_path, heartbeat_s=2.0).reconnect_spread_s == 2.0
    assert AgentConfig(dir=tmp_path).reconnect_spread_s == 30.0
