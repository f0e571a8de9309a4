"""Which device comes in which wave: a salted hash, and nothing else."""

import hashlib
from collections.abc import Mapping

from edgefleet.errors import ConfigError
from fleet_server.rollout.policy import Policy, plan_waves


def rank(salt: str, device_id: str) -> bytes:
    """Place of a device in the order of one rollout: sha256 of "salt|device", so that nobody is always first."""
    return hashlib.sha256(f"{salt}|{device_id}".encode()).digest()


def assign_waves(salt: str, devices: Mapping[str, Mapping[str, str]], policy: Policy) -> tuple[tuple[str, ...], ...]:
    """The devices that each wave adds to the ones before it.

    The answer depends on the salt, the ids and the policy only: the same in any process and any order of `devices`.

    Args:
        salt: Of the rollout.
        devices: Selected devices with their labels.
        policy: Gives the cumulative sizes; they are clipped to the selection, waves that would add nobody are left out.

    Raises:
        ConfigError: No device is selected; a rollout to nobody would be done without evidence.
    """
    if not devices:
        raise ConfigError("the selection matches no device: nothing to roll out; check its labels")
    order = sorted(devices, key=lambda device_id: (rank(salt, device_id), device_id))
    ends = [wave.devices for wave in plan_waves(policy, len(order))]
    return tuple(tuple(order[start:end]) for start, end in zip([0, *ends], ends, strict=False))
