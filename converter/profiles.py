"""Kinds of devices as data: what they run, how fast and how large they are. Whatever is derived from this table is an estimate.

`cpu_factor` is how many times longer one core takes than one core of a present x86-64 server, for which 1 stands. For microcontrollers it
is the ratio of published CoreMark figures (3.40 per MHz of a Cortex-M4, 5.01 of a Cortex-M7, 614 for one core of an ESP32-S3; 25 000 is
assumed for the server's core), doubled, because CoreMark flatters small cores. For boards it is the rounded ratio of single-core scores of
common suites. None was measured with these models: caches, flash wait states, frequency scaling and kernels for the processor at hand
change each by a factor of two, so measure on the device before a promise is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from edgefleet.errors import ConfigError
from edgefleet.manifest import Runtime

Aim = Literal["size", "latency", "memory", "error"]

_KB: Final = 1_000
_MB: Final = 1_000_000
_GB: Final = 1_000_000_000

# What Python, the runtime and their dependencies take on a disk; C needs nothing beside itself.
RUNTIME_STORAGE_BYTES: Final[Mapping[Runtime, int]] = {"onnxruntime": 154 * _MB, "litert": 137 * _MB, "c": 0}


@dataclass(frozen=True)
class DeviceClass:
    """Devices that are chosen for alike.

    Attributes:
        name: Its name.
        title: For people.
        runtimes: What such a device can run.
        aims: What decides between variants, in order: (quantity, factor): variants within that factor of the best count as equal.
        profile: Profile that stands for the class in a proposal.
    """

    name: str
    title: str
    runtimes: tuple[Runtime, ...]
    aims: tuple[tuple[Aim, float], ...]
    profile: str


@dataclass(frozen=True)
class Profile:
    """One kind of device.

    Attributes:
        name: Its name in `[device] profile` and `--profile`.
        title: For people.
        device_class: Name of its class.
        cpu_factor: How many times longer it takes than the measuring machine, which is taken for a present x86-64 server.
        ram_bytes: Of the device.
        storage_bytes: Flash or disk.
    """

    name: str
    title: str
    device_class: str
    cpu_factor: float
    ram_bytes: int
    storage_bytes: int


CLASSES: Final[dict[str, DeviceClass]] = {
    found.name: found
    for found in (
        # Flash is what runs out first.
        DeviceClass("microcontroller", "microcontroller (C)", ("c",), (("size", 1.05), ("latency", 1.1), ("error", 10.0)), "cortex-m7"),
        # Nobody feels a factor of two in microseconds; of memory there is little.
        DeviceClass(
            "small-board",
            "small Linux board",
            ("litert", "onnxruntime"),
            (("latency", 2.0), ("memory", 1.1), ("size", 1.05), ("error", 10.0)),
            "raspberry-pi-zero-2",
        ),
        DeviceClass(
            "edge-box",
            "server-class edge box",
            ("onnxruntime", "litert"),
            (("latency", 1.1), ("error", 10.0), ("memory", 1.1), ("size", 1.05)),
            "x86-server",
        ),
    )
}

PROFILES: Final[dict[str, Profile]] = {
    found.name: found
    for found in (
        Profile("cortex-m4", "Cortex-M4F at 168 MHz", "microcontroller", 90.0, 192 * _KB, 1 * _MB),
        Profile("esp32-s3", "ESP32-S3 at 240 MHz", "microcontroller", 80.0, 512 * _KB, 8 * _MB),
        Profile("cortex-m7", "Cortex-M7 at 480 MHz", "microcontroller", 20.0, 1 * _MB, 2 * _MB),
        Profile("raspberry-pi-zero-2", "Raspberry Pi Zero 2 W (Cortex-A53, 1 GHz)", "small-board", 15.0, 512 * _MB, 16 * _GB),
        Profile("raspberry-pi-4", "Raspberry Pi 4 (Cortex-A72, 1.8 GHz)", "small-board", 5.0, 2 * _GB, 16 * _GB),
        Profile("raspberry-pi-5", "Raspberry Pi 5 (Cortex-A76, 2.4 GHz)", "small-board", 2.0, 4 * _GB, 32 * _GB),
        Profile("intel-n100", "Intel N100 mini PC", "edge-box", 1.5, 8 * _GB, 128 * _GB),
        Profile("x86-server", "x86-64 server core", "edge-box", 1.0, 16 * _GB, 256 * _GB),
    )
}


def profile_of(name: str) -> Profile | None:
    """The profile of that name; None for "", which stands for the measuring machine itself.

    Raises:
        ConfigError: There is none.
    """
    if name and name not in PROFILES:
        raise ConfigError(f"device profile {name[:64]!r} is unknown: one of {', '.join(PROFILES)}")
    return PROFILES[name] if name else None
