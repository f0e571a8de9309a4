"""Which files are opened at all, and what a damaged one says."""

import pickle
import zipfile
from pathlib import Path

import pytest

from edgefleet.errors import ArtifactError, InputError
from trainer.importers.found import find_model
from trainer.importers.mlmodel import parse_flavours

SKLEARN = """artifact_path: model
flavors:
  python_function:
    env:
      conda: conda.yaml
    model_path: {file}
  sklearn:
    code: null
    pickled_model: {file}
    serialization_format: {form}
    sklearn_version: 1.9.1
    skops_trusted_types:
    - numpy.dtype
mlflow_version: 3.17.2
signature:
  inputs: '[{{"type": "double", "name": "flavors:"}}]'
"""


def skops_file(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("schema.json", "{}")
    return path


def test_an_mlflow_directory_with_a_skops_model_is_found_with_its_version(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(SKLEARN.format(file="model.skops", form="skops"))
    skops_file(tmp_path / "model.skops")

    found = find_model(tmp_path)

    assert (found.kind, found.origin, found.foreign_version) == ("skops", "MLflow flavour sklearn", "1.9.1")


@pytest.mark.parametrize("form", ["cloudpickle", "pickle"])
def test_a_pickled_mlflow_model_is_refused_with_the_way_out(tmp_path: Path, form: str) -> None:
    (tmp_path / "MLmodel").write_text(SKLEARN.format(file="model.pkl", form=form))

    with pytest.raises(InputError, match=rf"is a {form} file, which can run any code and is never opened; save it with skops"):
        find_model(tmp_path)


@pytest.mark.parametrize("name", ["model.pkl", "model.joblib", "model.pickle", "weights.pt"])
def test_pickles_are_refused_by_their_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="can run any code and is never opened"):
        find_model(tmp_path / name)


@pytest.mark.parametrize("name", ["model.skops", "model.onnx", "model.keras", "model.tflite"])
def test_a_pickle_under_another_name_is_still_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps({"a": 1}))

    with pytest.raises(InputError, match="never opened"):
        find_model(tmp_path / name)


def test_a_path_that_leaves_the_directory_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    skops_file(tmp_path / "model.skops")
    (folder / "MLmodel").write_text(SKLEARN.format(file="../model.skops", form="skops"))

    with pytest.raises(ArtifactError, match="lies outside the directory"):
        find_model(folder)


def test_keras_with_custom_objects_is_refused(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors:\n  tensorflow:\n    data: data\n    model_type: keras\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "custom_objects.cloudpickle").write_bytes(b"")

    with pytest.raises(InputError, match="custom objects as a pickle, which is never opened"):
        find_model(tmp_path)


def test_a_directory_of_another_library_names_what_is_imported(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors:\n  xgboost:\n    data: model.xgb\n  python_function:\n    data: model.xgb\n")

    with pytest.raises(InputError, match=r"none of its flavours \(python_function, xgboost\) is imported; log it as sklearn with skops"):
        find_model(tmp_path)


@pytest.mark.parametrize("kind", ["skops", "keras"])
@pytest.mark.parametrize("kept", [0, 10, 60])
def test_a_truncated_archive_says_so(tmp_path: Path, kind: str, kept: int) -> None:
    path = tmp_path / f"model.{kind}"
    path.write_bytes(skops_file(tmp_path / "whole").read_bytes()[:kept])

    with pytest.raises(ArtifactError, match=rf"{kept} bytes are no readable .{kind} file"):
        find_model(path)


def test_an_archive_that_unpacks_to_more_than_the_limit_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = skops_file(tmp_path / "model.skops")
    content = bytearray(path.read_bytes())
    size = content.index(b"PK\x01\x02") + 24  # where the directory says how large the file will be
    content[size : size + 4] = (4_000_000_000).to_bytes(4, "little")
    path.write_bytes(content)

    with pytest.raises(ArtifactError, match="unpacks to 4000000000 bytes from 122, which exceed the limit of 2147483648"):
        find_model(path)


@pytest.mark.parametrize(("name", "said"), [("model.h5", "save it as .keras"), ("model.txt", "it must be .skops"), ("model", "no suffix")])
def test_other_formats_are_refused_with_the_ones_that_are_not(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        find_model(tmp_path / name)


def test_a_missing_file_and_a_directory_without_mlmodel_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read: No such file"):
        find_model(tmp_path / "model.onnx")
    with pytest.raises(ArtifactError, match="no MLmodel in it"):
        find_model(tmp_path)


@pytest.mark.parametrize("text", ["", "flavors: {sklearn: {data: x}}\n", "flavors: &a\n", "a: 1\n", "flavors:\n  x: {}\n"])
def test_flavours_that_mlflow_would_not_have_written_are_none(text: str) -> None:
    assert parse_flavours(text) == {}


def test_flavours_are_read_whatever_the_indent_and_quotes() -> None:
    text = """
other:
    flavors:
        a: 1
flavors:
    'onnx':
        data: "model.onnx"
        deep:
            data: no
    keras:
        x: ~
"""

    assert parse_flavours(text) == {"onnx": {"data": "model.onnx"}, "keras": {}}
