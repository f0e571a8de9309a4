"""The parity table of docs/conversion.md says what is measured: some cells in every run, all of them in the second stage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converter.recipes import RECIPES
from tests.unit.converter.converter_combinations import combinations
from tests.unit.converter.converter_parity_table import BEGIN, END, Cell, fits, measure_apart, rendered, shares, text_of, written

PAGE = Path(__file__).parents[3] / "docs" / "conversion.md"
REMEDY = "write it again: python -m tests.unit.converter.converter_parity_table docs/conversion.md"
# Few combinations to a child: together they would take longer than one test may.
CHILDREN = 8
# These need no TensorFlow.
FIRST = {
    "logistic regression / impute, scale": ["onnx-fp32", "c"],
    "random forest / none, missing values": ["onnx-fp32", "c"],
    "histogram boosting, 3 classes / none, categories": ["onnx-fp32", "c"],
    "MLP / impute, one-hot, scale": ["onnx-fp32", "onnx-fp16", "onnx-int8", "c"],
    "isolation forest / impute": ["onnx-fp32", "c"],
}


@pytest.fixture(scope="module")
def said() -> dict[str, dict[str, str]]:
    return written(PAGE.read_text())


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Cell]]:
    targets = sorted({target for wanted in FIRST.values() for target in wanted})
    return measure_apart(list(FIRST), tmp_path_factory.mktemp("first"), targets)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Cell]]:
    """Measures a combination together with those of its share, once."""
    known: dict[str, dict[str, Cell]] = {}

    def of(name: str) -> dict[str, Cell]:
        if name not in known:
            share = next(names for names in shares(CHILDREN) if name in names)
            known.update(measure_apart(share, tmp_path_factory.mktemp("share")))
        return known[name]

    return of


@pytest.mark.parametrize(("name", "target"), [(name, target) for name, targets in FIRST.items() for target in targets])
def test_a_cell_says_what_is_measured(said: dict[str, dict[str, str]], first: dict[str, dict[str, Cell]], name: str, target: str) -> None:
    assert fits(said[name][target], first[name][target]), f"{first[name][target]} is written as {said[name][target]!r}; {REMEDY}"


@pytest.mark.keras
@pytest.mark.conversions
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", combinations())
def test_a_line_says_what_is_measured(said: dict[str, dict[str, str]], measured: Callable[[str], dict[str, Cell]], name: str) -> None:
    cells = measured(name)

    wrong = {target: (said[name][target], cell) for target, cell in cells.items() if not fits(said[name][target], cell)}
    assert wrong == {}, REMEDY
    assert list(cells) == list(RECIPES)


def test_the_table_has_every_combination_and_target_and_no_silent_cell(said: dict[str, dict[str, str]]) -> None:
    assert list(said) == list(combinations())
    assert len(said) >= 40
    assert {tuple(cells) for cells in said.values()} == {tuple(RECIPES)}
    assert [name for name, cells in said.items() if not all(cells.values())] == []


@pytest.mark.parametrize(
    ("text", "cell", "same"),
    [
        ("exact", {"error": 1.9e-6}, True),
        ("exact", {"error": 2.1e-6}, False),
        ("<= 1e-5", {"error": 6e-7}, True),
        ("<= 1e-5", {"error": 4e-7}, False),
        ("<= 1e-5", {"error": 9e-6, "mixed": True}, False),
        ("<= 0.1 mixed", {"error": 0.05, "mixed": True}, True),
        ("<= 0.1", {"error": 0.05, "kept": False, "gates": ["C1"]}, False),
        ("gate C1", {"error": 0.05, "kept": False, "gates": ["C1"]}, True),
        ("gate C2", {"error": 0.05, "kept": False, "gates": ["C1"]}, False),
        ("gate C1", {"error": 0.05}, False),
        ("gate C1", {"error": 0.05, "close": True}, True),
        ("<= 0.1", {"error": 0.05, "kept": False, "gates": ["C1"], "close": True}, True),
        ("exact", {"reason": "no form"}, False),
        ("no form", {"reason": "no form"}, True),
    ],
)
def test_a_cell_fits_its_decade_and_nothing_else(text: str, cell: dict[str, Any], same: bool) -> None:
    whole = cell if "reason" in cell else {"kept": True, "mixed": False, "gates": [], "close": False, **cell}

    assert fits(text, whole) is same


def test_a_written_table_is_read_back() -> None:
    ok: Cell = {"error": 3e-3, "kept": True, "mixed": False, "gates": []}
    none: Cell = {"reason": "it would take 812 bytes instead of 700: too small"}
    found = {name: {target: none if target == "c" else ok for target in RECIPES} for name in combinations()}

    again = written(f"# Page\n\n{BEGIN}\n{rendered(found)}\n{END}\n")

    assert list(again) == list(combinations())
    assert {cells["onnx-int8"] for cells in again.values()} == {"<= 1e-2"}
    assert {cells["c"] for cells in again.values()} == {text_of(none)} == {"it would take no fewer bytes: too small"}
