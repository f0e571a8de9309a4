"""Ed25519 over raw bytes, by the OpenSSL that Python's own `hashlib` has loaded, or by `cryptography` where that cannot be reached.

`cryptography` brings an OpenSSL of its own: 6 MB of a device's memory for two functions that are there already. Python does not offer them,
so they are called through ctypes. Not every Python has a library to call (some are linked statically), and an OpenSSL in FIPS mode may
refuse the curve: therefore this way is taken only when it answered the first test vector of RFC 8032 right, a true and a
false signature.
Everything but OpenSSL's plain "1" means "not verified".

Reference: RFC 8032 (Josefsson and Liusvaara, 2017), section 7.1.
"""

import ctypes
import functools
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from edgefleet.errors import MissingPartError

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

_ED25519: Final = 1087  # EVP_PKEY_ED25519, the same in every OpenSSL
_PRIVATE: Final = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
_PUBLIC: Final = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
_SIGNATURE: Final = bytes.fromhex(
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
)


class Ed25519(Protocol):
    """What one library offers; every argument and answer is raw bytes of the right length."""

    def verify(self, public: bytes, signature: bytes, payload: bytes) -> bool:
        """Whether the signature was made over exactly these bytes."""
        ...

    def sign(self, private: bytes, payload: bytes) -> bytes:
        """64 bytes over exactly these bytes."""
        ...

    def public_of(self, private: bytes) -> bytes:
        """The public key of a private one."""
        ...


def generate() -> bytes:
    """A private key: 32 random bytes."""
    return secrets.token_bytes(KEY_BYTES)


@functools.cache
def ed25519() -> Ed25519:
    """The library of this process.

    Raises:
        MissingPartError: Python's OpenSSL does not offer the curve, and `cryptography` is not installed.
    """
    try:
        found = OpenSsl()
        if answers_right(found):
            return found
    except (ImportError, AttributeError, OSError, ArithmeticError):  # no such module, file, symbol or curve
        pass
    try:
        return Cryptography()
    except ImportError as err:
        raise MissingPartError(f"no Ed25519 here: {err}; pip install cryptography") from err


def answers_right(library: Ed25519) -> bool:
    """Whether a library signs and verifies the first vector of RFC 8032, and refuses it with one byte more."""
    known = library.public_of(_PRIVATE) == _PUBLIC and library.sign(_PRIVATE, b"") == _SIGNATURE
    return known and library.verify(_PUBLIC, _SIGNATURE, b"") and not library.verify(_PUBLIC, _SIGNATURE, b"\0")


class OpenSsl:
    """The OpenSSL behind `hashlib`.

    Raises:
        ImportError: Python was built without it.
        AttributeError: It is part of the interpreter, or shows no such functions.
        OSError: Its file cannot be opened.
    """

    def __init__(self) -> None:
        import _hashlib

        # A name is looked up in the file and in what it is linked with: that very libcrypto, whatever it is called here.
        library = ctypes.CDLL(_hashlib.__file__)
        pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
        sizes = ctypes.POINTER(ctypes.c_size_t)

        def function(name: str, result: Any, *arguments: Any) -> Any:
            found = getattr(library, name)
            found.restype, found.argtypes = result, arguments
            return found

        self._private = function("EVP_PKEY_new_raw_private_key", pointer, ctypes.c_int, pointer, text, size)
        self._public = function("EVP_PKEY_new_raw_public_key", pointer, ctypes.c_int, pointer, text, size)
        self._raw_public = function("EVP_PKEY_get_raw_public_key", ctypes.c_int, pointer, text, sizes)
        self._free_key = function("EVP_PKEY_free", None, pointer)
        self._context = function("EVP_MD_CTX_new", pointer)
        self._free_context = function("EVP_MD_CTX_free", None, pointer)
        self._begin_sign = function("EVP_DigestSignInit", ctypes.c_int, pointer, pointer, pointer, pointer, pointer)
        self._sign = function("EVP_DigestSign", ctypes.c_int, pointer, text, sizes, text, size)
        self._begin_verify = function("EVP_DigestVerifyInit", ctypes.c_int, pointer, pointer, pointer, pointer, pointer)
        self._verify = function("EVP_DigestVerify", ctypes.c_int, pointer, text, size, text, size)
        self._forget_errors = function("ERR_clear_error", None)

    def verify(self, public: bytes, signature: bytes, payload: bytes) -> bool:
        """Whether the signature was made over exactly these bytes."""
        if len(signature) != SIGNATURE_BYTES:
            return False
        with self._key(self._public, public) as key, self._started(self._begin_verify, key) as context:
            return bool(self._verify(context, signature, len(signature), payload, len(payload)) == 1)

    def sign(self, private: bytes, payload: bytes) -> bytes:
        """64 bytes over exactly these bytes."""
        signature, length = ctypes.create_string_buffer(SIGNATURE_BYTES), ctypes.c_size_t(SIGNATURE_BYTES)
        with self._key(self._private, private) as key, self._started(self._begin_sign, key) as context:
            _expect(self._sign(context, signature, ctypes.byref(length), payload, len(payload)) == 1, "sign")
        return signature.raw[: length.value]

    def public_of(self, private: bytes) -> bytes:
        """The public key of a private one."""
        raw, length = ctypes.create_string_buffer(KEY_BYTES), ctypes.c_size_t(KEY_BYTES)
        with self._key(self._private, private) as key:
            _expect(self._raw_public(key, raw, ctypes.byref(length)) == 1, "tell the public key")
        return raw.raw[: length.value]

    @contextmanager
    def _key(self, make: Any, raw: bytes) -> Iterator[int]:
        key = make(_ED25519, None, raw, len(raw))
        try:
            _expect(bool(key), "take the key")
            yield key
        finally:
            self._free_key(key)
            self._forget_errors()  # else the next TLS call of this thread would take them for its own

    @contextmanager
    def _started(self, begin: Any, key: int) -> Iterator[int]:
        context = self._context()
        try:
            _expect(bool(context) and begin(context, None, None, None, key) == 1, "begin")
            yield context
        finally:
            self._free_context(context)


class Cryptography:
    """The package `cryptography`.

    Raises:
        ImportError: It is not installed.
    """

    def __init__(self) -> None:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

        self._invalid, self._private, self._public = InvalidSignature, Ed25519PrivateKey, Ed25519PublicKey

    def verify(self, public: bytes, signature: bytes, payload: bytes) -> bool:
        """Whether the signature was made over exactly these bytes."""
        try:
            self._public.from_public_bytes(public).verify(signature, payload)
        except self._invalid:
            return False
        return True

    def sign(self, private: bytes, payload: bytes) -> bytes:
        """64 bytes over exactly these bytes."""
        return self._private.from_private_bytes(private).sign(payload)

    def public_of(self, private: bytes) -> bytes:
        """The public key of a private one."""
        return self._private.from_private_bytes(private).public_key().public_bytes_raw()


def _expect(done: bool, what: str) -> None:
    if not done:
        raise ArithmeticError(f"OpenSSL could not {what} with Ed25519")
