"""Hashes and canonical JSON: the names of artefacts."""

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_CHUNK_BYTES: Final = 1 << 20
# From this size on OpenSSL's speed is worth its memory.
_LARGE_BYTES: Final = 4 << 20
_OWN_MODULE: Final = "_sha2" if sys.version_info >= (3, 12) else "_sha256"


def sha256_hex(content: bytes) -> str:
    """Sha256 of bytes in lower-case hex."""
    return str(_sha256(len(content), content).hexdigest())


def sha256_file(path: Path) -> str:
    """Sha256 of a file in lower-case hex, read in chunks."""
    digest = _sha256(path.stat().st_size)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return str(digest.hexdigest())


def canonical_json(value: Mapping[str, Any] | list[Any]) -> bytes:
    """JSON with sorted keys and a trailing newline: equal values give equal bytes.

    Raises:
        ValueError: The value holds NaN or an infinity, which JSON does not know.
    """
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _sha256(size_bytes: int, content: bytes = b"") -> Any:
    """A hash over `content`, of OpenSSL or of Python itself.

    OpenSSL's is five times as quick; importing `hashlib` loads it, which takes 4 MB. A process that has a model of a few hundred kilobytes
    checked and needs OpenSSL for nothing else stays without.
    """
    if size_bytes < _LARGE_BYTES and "_hashlib" not in sys.modules:
        try:
            return importlib.import_module(_OWN_MODULE).sha256(content)
        except ImportError:  # a Python that was built without it
            pass
    import hashlib

    return hashlib.sha256(content)
