from pathlib import Path

import msgspec
import pytest

from edgefleet.bundle import Bundle
from edgefleet.digests import sha256_hex
from edgefleet.errors import ArtifactError
from edgefleet.grid import Sampling
from edgefleet.manifest import FileEntry, Input, Manifest, Tolerance, Variant, check_file_name, manifest_bytes, parse_manifest

FILES = {"onnx-fp32.onnx": b"graph", "reference.npz": b"reference", "golden.npz": b"golden"}


def manifest(files: dict[str, bytes] | None = None) -> Manifest:
    content = FILES if files is None else files
    return Manifest(
        format_version=1,
        project="digits",
        task="classification",
        inputs=[Input(name="a"), Input(name="b", low=0.0, high=1.0)],
        classes=["no", "yes"],
        outputs=["margin", "probabilities"],
        margin_kind="logit",
        shape=[2],
        window_rows=1,
        variants=[
            Variant(
                name="onnx-fp32",
                runtime="onnxruntime",
                file="onnx-fp32.onnx",
                model_digest=sha256_hex(content["onnx-fp32.onnx"]),
                tolerance=Tolerance(max_error=1e-4, tie_margin=1e-3),
            )
        ],
        reference="reference.npz",
        reference_digest=sha256_hex(content["reference.npz"]),
        golden="golden.npz",
        package_digest="cd" * 32,
        files={name: FileEntry(sha256=sha256_hex(c), size_bytes=len(c)) for name, c in content.items()},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "manifest.json").write_bytes(manifest_bytes(manifest()))
    return tmp_path


def test_a_bundle_opens_and_its_digest_is_that_of_its_manifest(folder: Path) -> None:
    bundle = Bundle.open(folder)
    bundle.verify()
    assert bundle.digest == sha256_hex((folder / "manifest.json").read_bytes())
    assert bundle.manifest == manifest()


def test_equal_manifests_give_equal_bytes() -> None:
    assert manifest_bytes(manifest()) == manifest_bytes(manifest(dict(reversed(FILES.items()))))


def test_a_flipped_bit_is_found_before_anybody_parses_the_graph(folder: Path) -> None:
    (folder / "onnx-fp32.onnx").write_bytes(b"grapi")
    with pytest.raises(ArtifactError, match=r"onnx-fp32\.onnx: sha256"):
        Bundle.open(folder).read("onnx-fp32.onnx")


def test_a_truncated_file_names_both_sizes(folder: Path) -> None:
    (folder / "onnx-fp32.onnx").write_bytes(b"gra")
    with pytest.raises(ArtifactError, match="3 bytes, the manifest says 5"):
        Bundle.open(folder).verify()


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "golden.npz").unlink()
    with pytest.raises(ArtifactError, match=r"golden\.npz: cannot be read"):
        Bundle.open(folder).verify()


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is this a bundle folder"):
        Bundle.open(tmp_path)


@pytest.mark.parametrize("length", [0, 1, 100, -2])
def test_a_truncated_manifest_is_refused(folder: Path, length: int) -> None:
    content = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(content[:length])
    with pytest.raises(ArtifactError, match="manifest"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format_version": 2}, "format version 2 is unknown, this program reads 1"),
        ({"surprise": 1}, "surprise"),
        ({"project": "Up/down"}, "is not an identifier"),
        ({"variants": []}, "no variant"),
        ({"inputs": []}, "0 inputs"),
        ({"reference_digest": "00" * 32}, "reference_digest"),
        ({"golden": "other.npz"}, "is not among the files"),
        ({"files": {"../x": {"sha256": "ab" * 32, "size_bytes": 1}}}, "is not allowed"),
    ],
)
def test_an_inconsistent_manifest_is_refused_by_name(change: dict[str, object], complaint: str) -> None:
    document = msgspec.to_builtins(manifest()) | change
    with pytest.raises(ArtifactError, match=complaint):
        parse_manifest(msgspec.json.encode(document))


def test_a_grid_travels_in_the_manifest_and_is_left_out_where_there_is_none() -> None:
    gridded = msgspec.structs.replace(manifest(), window_rows=8, sampling=Sampling(rate_s=0.5, hold=2, time="at", present=["a"]))

    assert parse_manifest(manifest_bytes(gridded)) == gridded
    # What a program wrote before there was this field is read, and what it could read is still written so.
    assert b"sampling" not in manifest_bytes(manifest())
    assert parse_manifest(manifest_bytes(manifest())).sampling is None


@pytest.mark.parametrize(
    ("sampling", "complaint"),
    [
        ({"rate_s": 0.0}, "rate_s is 0"),
        ({"rate_s": 1.0, "hold": -1}, "hold is -1"),
        ({"rate_s": 1.0, "reset_after": 10**9}, "reset_after 1000000000"),
        ({"rate_s": 1.0, "present": ["c"]}, "names 'c', which is no input"),
        ({"rate_s": 1.0, "jitter": 2}, "jitter"),
        ({"hold": 1}, "rate_s"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(sampling: dict[str, object], complaint: str) -> None:
    document = msgspec.to_builtins(manifest()) | {"window_rows": 8, "sampling": sampling}
    with pytest.raises(ArtifactError, match=complaint):
        parse_manifest(msgspec.json.encode(document))


def test_a_grid_without_windows_is_refused() -> None:
    document = msgspec.to_builtins(manifest()) | {"sampling": {"rate_s": 1.0}}
    with pytest.raises(ArtifactError, match="window_rows is 1"):
        parse_manifest(msgspec.json.encode(document))


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/b/c", ".hidden", "a/../b", "a\0b", "x" * 121, "", "a//b", "ä"])
def test_names_that_could_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(ArtifactError, match="is not allowed"):
        check_file_name(name)


def test_a_device_fetches_only_what_one_variant_needs() -> None:
    assert manifest().variant_files("onnx-fp32") == ["onnx-fp32.onnx", "reference.npz", "golden.npz"]
    with pytest.raises(ArtifactError, match="it has onnx-fp32"):
        manifest().variant("tflite-int8")
