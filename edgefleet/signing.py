"""Ed25519 keys and signatures, as raw bytes and hex.

The director key signs desired state; each device signs its attestations. A key id is the sha256 of the public key.
"""

from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edgefleet.digests import sha256_hex
from edgefleet.errors import ArtifactError
from edgefleet.files import write_durably


class PublicKey:
    """A verifying key; equality and identity are its 32 raw bytes."""

    def __init__(self, hex_bytes: str) -> None:
        try:
            raw = bytes.fromhex(hex_bytes)
            self._key = Ed25519PublicKey.from_public_bytes(raw)
        except ValueError as err:
            raise ArtifactError(f"public key {hex_bytes[:80]!r} is not 32 bytes in hex") from err
        self.hex = raw.hex()
        self.keyid = sha256_hex(raw)

    def verifies(self, signature: bytes, payload: bytes) -> bool:
        """Whether `signature` was made by this key over exactly these bytes."""
        try:
            self._key.verify(signature, payload)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """A private key that lives in one file, readable by its owner only."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key().public_bytes_raw().hex())

    @classmethod
    def load_or_create(cls, path: Path) -> "SigningKey":
        """Read the key at `path`, or make one there (mode 0600)."""
        if path.exists():
            try:
                return cls(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text().strip())))
            except ValueError as err:
                raise ArtifactError(f"{path}: not an Ed25519 private key of 32 bytes in hex; restore it from a backup") from err
        key = Ed25519PrivateKey.generate()
        write_durably(path, key.private_bytes_raw().hex().encode() + b"\n", mode=0o600)
        return cls(key)

    def sign(self, payload: bytes) -> bytes:
        """64 bytes over exactly these bytes."""
        return self._key.sign(payload)
