"""Versions of libraries by the name they are imported under, without importing them."""

import functools
import re
import sys
from collections.abc import Iterable
from importlib import metadata
from typing import Final

# The usual libraries by hand: asking the metadata of everything installed takes a tenth of a second.
_DISTRIBUTIONS: Final[dict[str, tuple[str, ...]]] = {
    "sklearn": ("scikit-learn",),
    "tensorflow": ("tensorflow-cpu", "tensorflow"),
    "paho": ("paho-mqtt",),
    "yaml": ("PyYAML",),
    "mlflow": ("mlflow-skinny", "mlflow"),
    "ai_edge_litert": ("ai-edge-litert",),
}
_REQUIREMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def versions_of(modules: Iterable[str]) -> dict[str, str]:
    """Versions of the libraries that own these top-level modules, and of what they require directly; Python's without its last number."""
    versions = {"python": "{}.{}".format(*sys.version_info)}
    for module in sorted(set(modules) - set(sys.stdlib_module_names)):
        versions |= _versions_of(module)
    return dict(sorted(versions.items()))


def version_of(module: str) -> str | None:
    """Version of the library that owns a top-level module, None when it is not installed."""
    return next((version for version in map(_version, _candidates(module)) if version is not None), None)


@functools.cache
def _versions_of(module: str) -> dict[str, str]:
    versions = {}
    for name in _candidates(module):
        if (version := _version(name)) is not None:
            versions[_normal(name)] = version
            for line in metadata.requires(name) or []:
                required = _REQUIREMENT.match(line)
                if required and "extra ==" not in line and (below := _version(required.group())) is not None:
                    versions[_normal(required.group())] = below
    return versions or {module: "absent"}


def _candidates(module: str) -> tuple[str, ...]:
    if module in _DISTRIBUTIONS:
        return _DISTRIBUTIONS[module]
    if _version(module) is not None:
        return (module,)
    return tuple(sorted(set(_installed().get(module, ()))))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def _installed() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


@functools.cache
def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
