"""Units read before, kept in a file between processes. They hold for exactly the source files they were read from, byte for byte.

Hashing every file of our packages takes 3 ms, reading their syntax a hundred times as long.
"""

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from edgefleet.files import write_durably

Units = dict[tuple[str, str], tuple[str, set[tuple[str, str]]]]  # (module, name) -> digest and the units it names
_READERS: Final = ("code_digest.py", "code_modules.py", "code_kept.py")  # what a unit's digest means is theirs to say


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    of: str
    units: list[tuple[str, str, str, list[tuple[str, str]]]]


def sources_digest(packages: Mapping[str, Path]) -> str:
    """Sha256 of the Python files of some packages and of what reads them: paths and bytes, with Python's version.

    Args:
        packages: Folder that holds the package or module, by its top name.
    """
    digest = hashlib.sha256(sys.version.encode())
    for name in _READERS:
        digest.update(Path(__file__).with_name(name).read_bytes())
    for top, folder in sorted(packages.items()):
        for path in _paths(folder / top):
            content = path.read_bytes() if path.suffix == ".py" else b""
            digest.update(f"\0{path.relative_to(folder)}\0{len(content)}\0".encode("utf-8", "surrogateescape") + content)
    return digest.hexdigest()


def _paths(base: Path) -> Iterator[Path]:
    """The module's file, the package's files and folders, in order."""
    if (module := base.with_name(base.name + ".py")).is_file():
        yield module
    for root, folders, files in os.walk(base):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        yield Path(root)
        yield from (Path(root, name) for name in sorted(files) if name.endswith(".py"))


def read_units(path: Path, of: str) -> Units:
    """What `write_units` wrote for the same sources; nothing where it is absent, damaged, or of others."""
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return {(module, name): (digest, set(reached)) for module, name, digest, reached in kept.units} if kept.of == of else {}


def write_units(path: Path, of: str, units: Units) -> None:
    """Keep units.

    Raises:
        OSError: The disk refused.
    """
    listed = [(module, name, digest, sorted(reached)) for (module, name), (digest, reached) in sorted(units.items())]
    write_durably(path, msgspec.json.encode(_Kept(of, listed)))
