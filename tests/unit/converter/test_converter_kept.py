"""What children made is taken from the cache while nothing that it depends on has changed, files included."""

from pathlib import Path
from typing import Any

import pytest

from converter.kept import Kept
from edgefleet.package import PACKAGE_NAME

FUNCTION = "converter.originals:answer"


class Child:
    """Answers with one file in the job's folder, and counts how often it was asked."""

    def __init__(self, failed: dict[str, str] | None = None) -> None:
        self.asked, self.failed = 0, failed or {}

    def __call__(self, function: str, job: dict[str, Any]) -> dict[str, Any]:
        self.asked += 1
        path = Path(job["folder"]) / "answers.npz"
        path.write_bytes(f"{function} {self.asked}".encode())
        return {"answers": {"parity": str(path), "other": "plain text"}, "failed": self.failed, "notes": ["one"]}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("package", "one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "package" / PACKAGE_NAME).write_text("{}")
    return tmp_path


def job(folders: Path, name: str) -> dict[str, Any]:
    return {"package": str(folders / "package"), "folder": str(folders / name)}


def test_a_second_conversion_takes_the_answer_and_its_files(folders: Path) -> None:
    child = Child()

    first, made = Kept(folders / "cache", child).child("original", FUNCTION, job(folders, "one"), {"rows": 1})
    second, kept = Kept(folders / "cache", child).child("original", FUNCTION, job(folders, "two"), {"rows": 1})

    assert (child.asked, made, kept) == (1, False, True)
    assert second["answers"] == {"parity": str(folders / "two" / "answers.npz"), "other": "plain text"}
    assert (folders / "two" / "answers.npz").read_bytes() == (folders / "one" / "answers.npz").read_bytes()
    assert first["answers"]["parity"] == str(folders / "one" / "answers.npz")
    assert second["notes"] == ["one"]


def test_another_package_or_input_is_answered_anew(folders: Path) -> None:
    child = Child()
    kept = Kept(folders / "cache", child)
    kept.child("original", FUNCTION, job(folders, "one"), {"rows": 1})

    kept.child("original", FUNCTION, job(folders, "one"), {"rows": 2})
    (folders / "package" / PACKAGE_NAME).write_text('{"a": 1}')
    kept.child("original", FUNCTION, job(folders, "one"), {"rows": 2})

    assert child.asked == 3


def test_an_answer_that_tells_a_failure_is_tried_again(folders: Path) -> None:
    child = Child({"onnx-fp32": "crashed"})
    kept = Kept(folders / "cache", child)

    said = [kept.child("original", FUNCTION, job(folders, name), {}) for name in ("one", "two")]

    assert child.asked == 2
    assert [(answer["failed"], before) for answer, before in said] == [({"onnx-fp32": "crashed"}, False)] * 2


class Writer:
    """Writes C source, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, writer: str, document: dict[str, Any]) -> dict[str, Any]:
        self.asked += 1
        Path(document["result"]).write_text("int x;")
        return {"facts": {"asked": self.asked}}


def test_c_source_is_measured_anew_when_another_compiler_is_there(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer()
    kept = Kept(folders / "cache", writer)
    document = {**job(folders, "one"), "target": "c", "result": str(folders / "one" / "model.c")}
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(folders / "two"))
    kept("converter.to_c.make:make", document)
    compiler = folders / "two" / "gcc"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)

    found = [kept("converter.to_c.make:make", document) for _ in range(2)]

    assert writer.asked == 2
    assert [(said["facts"]["asked"], said.get("cached", False)) for said in found] == [(2, False), (2, True)]
