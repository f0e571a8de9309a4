"""Ed25519 keys and signatures, as raw bytes and hex.

The director key signs desired state; each device signs its attestations. A key id is the sha256 of the public key.
"""

from pathlib import Path

from edgefleet.digests import sha256_hex
from edgefleet.ed25519 import KEY_BYTES, ed25519, generate
from edgefleet.errors import ArtifactError
from edgefleet.files import create_durably


class PublicKey:
    """A verifying key; equality and identity are its 32 raw bytes."""

    def __init__(self, hex_bytes: str) -> None:
        raw = _key_bytes(hex_bytes)
        if raw is None:
            raise ArtifactError(f"public key {hex_bytes[:80]!r} is not {KEY_BYTES} bytes in hex")
        self._raw = raw
        self.hex = raw.hex()
        self.keyid = sha256_hex(raw)

    def verifies(self, signature: bytes, payload: bytes) -> bool:
        """Whether `signature` was made by this key over exactly these bytes."""
        return ed25519().verify(self._raw, signature, payload)


class SigningKey:
    """A private key that lives in one file, readable by its owner only."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.public = PublicKey(ed25519().public_of(raw).hex())

    @classmethod
    def load_or_create(cls, path: Path) -> "SigningKey":
        """Read the key at `path`, or make one there (mode 0600); all that do so at once have the same key.

        Raises:
            ArtifactError: What is there is no key.
        """
        if not path.exists():
            create_durably(path, generate().hex().encode() + b"\n", mode=0o600)
        # Read again also after making it: another process may have been first.
        raw = _key_bytes(path.read_text(errors="replace").strip())
        if raw is None:
            raise ArtifactError(f"{path}: not an Ed25519 private key of {KEY_BYTES} bytes in hex; restore it from a backup")
        return cls(raw)

    def sign(self, payload: bytes) -> bytes:
        """64 bytes over exactly these bytes."""
        return ed25519().sign(self._raw, payload)


def _key_bytes(text: str) -> bytes | None:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        return None
    return raw if len(raw) == KEY_BYTES else None
