"""What this device can run: runtimes, what they know, and what the processor has.

Everything that the system does not tell is unknown, and unknown is never a reason to refuse a variant.
"""

import functools
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.runtime import available_runtimes, loads
from edgefleet.graphs.allowed import NAMES
from edgefleet.manifest import Variant

# What every onnxruntime knows from this version on, the oldest that we install: all operators of our list, in all opsets up to this one.
_KNOWING_VERSION: Final = (1, 20)
_KNOWN_OPSET: Final = 21
_CPU_INFO: Final = Path("/proc/cpuinfo")
_X86: Final = frozenset({"x86_64", "amd64", "i686", "i386"})
# Without one of these an x86 processor adds products of 8-bit integers in 16 bits, and cuts what does not fit.
_WHOLE_PRODUCTS: Final = frozenset({"avx512_vnni", "avx_vnni", "avx_vnni_int8"})


@dataclass(frozen=True)
class Abilities:
    """What a device can run.

    Attributes:
        runtimes: Names of the runtimes that are installed and allowed.
        whole_integer_products: Whether the processor adds products of 8-bit integers without cutting them; None = unknown.
        onnx_operators: Names of operators that the installed onnxruntime knows; None = unknown.
        onnx_opset: Newest opset of the standard domain that it knows; None = unknown.
    """

    runtimes: tuple[str, ...]
    whole_integer_products: bool | None = None
    onnx_operators: frozenset[str] | None = None
    onnx_opset: int | None = None

    @classmethod
    def installed(cls, runtimes: Sequence[str] | None = None) -> "Abilities":
        """The runtimes of this device, without asking what they and the processor know; the argument as for `here`."""
        return cls(tuple(name for name in available_runtimes() if runtimes is None or name in runtimes))

    @classmethod
    def here(cls, runtimes: Sequence[str] | None = None, variants: Sequence[Variant] | None = None) -> "Abilities":
        """This device.

        Asking onnxruntime what it knows costs 30 ms and leaves 6 MB of memory taken, so it is asked only where the answer is in doubt.

        Args:
            runtimes: Restrict to these, or None for all that are installed.
            variants: Those that are to be judged: what every onnxruntime knows of them, unless `onnx_is_old`, stays unknown here; None asks
                for everything.
        """
        usable = cls.installed(runtimes).runtimes
        doubtful = "onnxruntime" in usable and (variants is None or any(_is_doubtful(variant) for variant in variants))
        operators, opset = _onnx_knows() if doubtful and loads("onnxruntime") else (None, None)
        return cls(cls.installed(runtimes).runtimes, _whole_products(_cpu_flags(), platform.machine()), operators, opset)


def _is_doubtful(variant: Variant) -> bool:
    """Whether an onnxruntime that runs here may know an operator or the opset of a variant not."""
    if variant.runtime != "onnxruntime":
        return False
    return variant.opset > _KNOWN_OPSET or not NAMES["onnxruntime"].issuperset(variant.operators)


def onnx_is_old() -> bool:
    """Whether the installed onnxruntime is older than the oldest that we install, or does not say; imports it."""
    import onnxruntime

    found = re.match(r"(\d+)\.(\d+)", str(getattr(onnxruntime, "__version__", "")))
    return found is None or (int(found[1]), int(found[2])) < _KNOWING_VERSION


@functools.cache
def _onnx_knows() -> tuple[frozenset[str] | None, int | None]:
    """Names of all operators and the newest opset; not every build of onnxruntime tells."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    try:
        schemas = state.get_all_operator_schema()
        return frozenset(schema.name for schema in schemas), max(schema.since_version for schema in schemas if schema.domain == "")
    except (AttributeError, ValueError):
        return None, None


@functools.cache
def _cpu_flags() -> frozenset[str]:
    """Flags of the first processor; empty where the system lists none."""
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        return frozenset()
    return next((frozenset(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), frozenset())


def _whole_products(flags: frozenset[str], machine: str) -> bool | None:
    if machine.lower() not in _X86:
        return True  # ARM adds in 32 bits
    return bool(flags & _WHOLE_PRODUCTS) if flags else None
