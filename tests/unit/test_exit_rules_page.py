"""The page of exit rules names tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "exit-rules.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize(("file", "test"), NAMED, ids=[test for _, test in NAMED])
def test_a_named_test_exists(file: str, test: str) -> None:
    assert re.search(rf"^def {test}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file} has no {test}"


@pytest.mark.parametrize("rule", ["S2", "S3", "S4", "K1", "K2", "K4", "K5", "M4"])
def test_each_rule_of_the_device_names_its_proof(rule: str) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| **{rule}** ")]

    assert re.search(r"`tests/[\w/]+\.py::test_\w+`", row)


def test_no_test_is_named_in_another_form() -> None:
    assert len(re.findall(r"::test_", PAGE)) == len(re.findall(r"`tests/[\w/]+\.py::test_\w+`", PAGE))
