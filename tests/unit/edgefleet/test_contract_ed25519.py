"""Ed25519: both libraries give the signatures of RFC 8032, agree with each other, and refuse what is not signed."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.ed25519 import Cryptography, Ed25519, OpenSsl, answers_right, ed25519, generate

ROOT = Path(__file__).resolve().parents[3]

# RFC 8032, section 7.1, tests 2, 3 and "SHA(abc)": private key, public key, message, signature.
VECTORS = [
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
]
LIBRARIES = [pytest.param(OpenSsl, id="openssl"), pytest.param(Cryptography, id="cryptography")]


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Ed25519:
    made: Ed25519 = request.param()
    return made


@pytest.mark.parametrize(("private", "public", "message", "signature"), VECTORS)
def test_the_vectors_of_the_rfc_come_out(library: Ed25519, private: str, public: str, message: str, signature: str) -> None:
    assert library.public_of(bytes.fromhex(private)).hex() == public
    assert library.sign(bytes.fromhex(private), bytes.fromhex(message)).hex() == signature
    assert library.verify(bytes.fromhex(public), bytes.fromhex(signature), bytes.fromhex(message))
    assert answers_right(library)


@given(payload=st.binary(max_size=2000), bit=st.integers(0, 511))
def test_both_libraries_sign_alike_and_refuse_every_flipped_bit(payload: bytes, bit: int) -> None:
    private, ours, theirs = generate(), OpenSsl(), Cryptography()
    public, signature = ours.public_of(private), ours.sign(private, payload)
    flipped = bytearray(signature)
    flipped[bit // 8] ^= 1 << bit % 8

    assert signature == theirs.sign(private, payload)
    assert public == theirs.public_of(private)
    assert [one.verify(public, signature, payload) for one in (ours, theirs)] == [True, True]
    assert [one.verify(public, bytes(flipped), payload) for one in (ours, theirs)] == [False, False]
    assert [one.verify(public, signature, payload + b"\0") for one in (ours, theirs)] == [False, False]


@pytest.mark.parametrize("size", [0, 1, 63, 65, 1000])
def test_a_signature_of_another_length_is_refused(library: Ed25519, size: int) -> None:
    private = generate()
    signature = (library.sign(private, b"x") * 16)[:size]
    assert not library.verify(library.public_of(private), signature, b"x")


@pytest.mark.parametrize("public", [b"\0" * 32, b"\xff" * 32, b"\x02" + b"\0" * 31])
def test_a_key_that_is_no_point_of_the_curve_verifies_nothing(library: Ed25519, public: bytes) -> None:
    signature = library.sign(generate(), b"x")
    assert not library.verify(public, signature, b"x")


def test_a_refusal_leaves_no_error_for_the_next_tls_call_of_the_thread() -> None:
    import _hashlib

    peek = ctypes.CDLL(_hashlib.__file__).ERR_peek_error
    peek.restype = ctypes.c_ulong
    ours = OpenSsl()
    assert not ours.verify(b"\xff" * 32, b"\x07" * 64, b"x")
    with pytest.raises(ArithmeticError, match="take the key"):
        ours.sign(b"too short", b"x")
    assert peek() == 0


def test_this_process_uses_what_it_has_loaded_already() -> None:
    assert isinstance(ed25519(), OpenSsl)


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        (["_hashlib"], "Cryptography"),
        (["_hashlib", "cryptography"], "MissingPartError no Ed25519 here: "),
    ],
)
def test_without_openssl_in_python_the_package_does_it_and_without_both_it_is_said(absent: list[str], said: str) -> None:
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({absent!r}))\n"
        "from edgefleet.ed25519 import answers_right, ed25519\n"
        "from edgefleet.errors import EdgefleetError\n"
        "try:\n"
        "    found = ed25519()\n"
        "    assert answers_right(found)\n"
        "    print(type(found).__name__)\n"
        "except EdgefleetError as err:\n"
        "    print(type(err).__name__, err)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout.startswith(said), done.stdout + done.stderr
