import hashlib

import pytest

from edgefleet.errors import ConfigError
from fleet_server.rollout import assign_waves
from tests.unit.fleet_server.rollout_world import policy

FLEET = {f"d{i}": {"site": "hall"} for i in range(8)}


def test_waves_add_up_to_the_selection_without_repeats() -> None:
    waves = assign_waves("salt", FLEET, policy())
    assert [len(wave) for wave in waves] == [1, 2, 5]
    assert sorted(device_id for wave in waves for device_id in wave) == sorted(FLEET)


def test_the_first_device_is_the_one_with_the_smallest_salted_hash() -> None:
    smallest = min(FLEET, key=lambda device_id: hashlib.sha256(f"salt|{device_id}".encode()).hexdigest())
    assert assign_waves("salt", FLEET, policy())[0] == (smallest,)


def test_neither_the_order_of_the_devices_nor_their_labels_change_the_waves() -> None:
    shuffled = {device_id: {"site": "yard"} for device_id in reversed(FLEET)}
    assert assign_waves("salt", shuffled, policy()) == assign_waves("salt", FLEET, policy())


def test_another_salt_gives_another_first_device() -> None:
    first = {assign_waves(f"salt-{i}", FLEET, policy())[0] for i in range(40)}
    assert len(first) == len(FLEET)


def test_a_selection_of_nobody_is_refused() -> None:
    with pytest.raises(ConfigError, match="matches no device"):
        assign_waves("salt", {}, policy())
