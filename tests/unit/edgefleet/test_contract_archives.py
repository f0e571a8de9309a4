"""Archives of foreign origin: bounded by what their directory says, which their members cannot exceed."""

import struct
import zipfile
from io import BytesIO

import numpy as np
import pytest

from edgefleet.archives import check_archive
from edgefleet.errors import ArtifactError
from edgefleet.package import npz_bytes, read_npz


def archive(members: dict[str, bytes]) -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return stream.getvalue()


def claiming(content: bytes, size: int) -> bytes:
    """The archive with another unpacked size of its first member, in the directory and before the member."""
    made = bytearray(content)
    for mark, place in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        at = made.index(mark) + place
        made[at : at + 4] = struct.pack("<I", size)
    return bytes(made)


def test_an_archive_within_its_limits_says_what_it_holds() -> None:
    assert check_archive(archive({"a": b"12", "b": b"x" * 1000}), "m.skops", ".skops") == {"a": 2, "b": 1000}


def test_a_bomb_is_refused_with_both_sizes() -> None:
    content = archive({"zeros": bytes(5_000_000)})

    with pytest.raises(ArtifactError, match=rf"m\.keras: unpacks to 5000000 bytes from {len(content)}, which exceed the limit of 1000000"):
        check_archive(content, "m.keras", ".keras", max_unpacked_bytes=1_000_000)


def test_the_sum_of_many_members_counts() -> None:
    content = archive({f"m{i}": bytes(100_000) for i in range(20)})

    with pytest.raises(ArtifactError, match="unpacks to 2000000 bytes"):
        check_archive(content, "m", ".npz", max_unpacked_bytes=1_999_999)


def test_too_many_members_are_refused_before_the_directory_is_parsed() -> None:
    content = archive({f"m{i}": b"" for i in range(101)})

    with pytest.raises(ArtifactError, match="101 members exceed the limit of 100"):
        check_archive(content, "m", ".npz", max_members=100)
    with pytest.raises(ArtifactError, match="101 members exceed"):
        check_archive(content[:-10], "m", ".npz", max_members=100)


def test_a_member_that_hides_its_size_gives_no_more_than_it_says() -> None:
    """What bounds unpacking is the claim, because Python's reader stops there and the checksum then fails."""
    hidden = claiming(archive({"a.npy": bytes(50_000_000)}), 1000)

    assert check_archive(hidden, "m", ".npz") == {"a.npy": 1000}
    with zipfile.ZipFile(BytesIO(hidden)) as opened, opened.open("a.npy") as member, pytest.raises(zipfile.BadZipFile, match="Bad CRC"):
        member.read()
    with pytest.raises(ArtifactError, match=r"not a readable \.npz"):
        read_npz(hidden, (), "arrays")


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"rubbish" * 100, archive({"a": b"x"})[:-1]])
def test_what_is_no_archive_is_an_artifact_error(content: bytes) -> None:
    with pytest.raises(ArtifactError, match=rf"m: {len(content)} bytes are no readable \.skops file"):
        check_archive(content, "m", ".skops")


def test_arrays_that_unpack_too_far_are_not_read() -> None:
    stream = BytesIO()
    np.savez_compressed(stream, x=np.zeros(1_000_000))

    assert read_npz(stream.getvalue(), ("x",), "rows")["x"].shape == (1_000_000,)
    with pytest.raises(ArtifactError, match="rows: unpacks to 8000"):
        read_npz(stream.getvalue(), ("x",), "rows", max_bytes=1_000_000)
    with pytest.raises(ArtifactError, match=r"10001 members exceed the limit of 10000"):
        read_npz(npz_bytes({f"a{i}": np.zeros(0) for i in range(10_001)}), (), "rows")


def test_a_member_that_is_no_array_is_refused_by_its_name() -> None:
    with zipfile.ZipFile(BytesIO(npz_bytes({"mean": np.zeros(3), "base": np.ones(1)}))) as made:
        members = {name: made.read(name) for name in made.namelist()}
    content = archive(members | {"mean.npy": members["mean.npy"].replace(b"NUMPY", b"NUMPX")})

    with pytest.raises(ArtifactError, match="member 'mean' is no array"):
        read_npz(content, (), "explainer")
    with pytest.raises(ArtifactError, match="member 'mean' is no array"):
        read_npz(content, ("base",), "explainer", ("mean",))
    assert read_npz(content, ("base",), "explainer")["base"].tolist() == [1.0]
