"""Style sheet and scripts: read once, served under an address that holds their digest, so that browsers may keep them for ever."""

from dataclasses import dataclass
from importlib import resources
from typing import Final

from edgefleet.digests import sha256_hex

KINDS: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@dataclass(frozen=True)
class Assets:
    """All static files by name, and one digest over them."""

    digest: str
    files: dict[str, tuple[bytes, str]]

    @classmethod
    def load(cls) -> "Assets":
        """Read the files that lie in `static`."""
        folder = resources.files("fleet_server.page").joinpath("static")
        files = {}
        for entry in sorted(folder.iterdir(), key=lambda item: item.name):
            kind = KINDS.get(entry.name.rpartition(".")[2])
            if kind is not None:
                files[entry.name] = (entry.read_bytes(), f"{kind}; charset=utf-8")
        digest = sha256_hex(b"\0".join(name.encode() + b"\0" + content for name, (content, _) in files.items()))
        return cls(digest[:16], files)
