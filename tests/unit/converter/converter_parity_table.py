"""The parity table of docs/conversion.md: every combination converted to every target and answered by the device's scorer.

`python -m tests.unit.converter.converter_parity_table docs/conversion.md` writes it between its markers; tests compare it with what they
measure. A figure's last digits differ from one processor to another, so a cell names the decade that the largest error lies in, and a
measured error fits a cell as long as it is not more than twice its bound and not less than half the bound of the decade before. An integer
variant so near the limit of a gate that a few rows decide may be written as kept or as left out.
"""

import json
import os
import re
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.unit.converter.converter_children import in_child
from tests.unit.converter.converter_combinations import Combination, combinations

if TYPE_CHECKING:
    from converter.gates import Gate

BEGIN: Final = "<!-- parity table: begin -->"
END: Final = "<!-- parity table: end -->"
EXACT: Final = "exact"
# What a cell may say of an error; a decade starts where the one before it ends.
DECADES: Final = {EXACT: 1e-6, "1e-5": 1e-5, "1e-4": 1e-4, "1e-3": 1e-3, "1e-2": 1e-2, "0.1": 0.1, "0.3": 0.3, "1": 1.0, "3": 3.0}
_KEPT_FLOAT: Final = " mixed"
_LEFT_OUT: Final = "gate "
# TensorFlow parses Python as the cache does, and Python 3.11 fails when two threads do.
_ONE_AT_A_TIME: Final = threading.RLock()

Cell = dict[str, Any]


def measure(wanted: Combination, folder: Path, targets: list[str] | None = None) -> dict[str, Cell]:
    """Convert and judge one combination, in this process.

    Args:
        wanted: Which.
        folder: An empty folder.
        targets: Names, or None for all.

    Returns:
        By target: `reason` why there is none, or `error` (largest), `kept`, `gates` that it fails, `mixed` (some layers stayed float),
        `close` (a few rows decide whether it is kept).
    """
    from converter.building import build
    from converter.conversion import Proof, judge_all
    from converter.gates import Limits
    from converter.kept import Kept
    from converter.planning import Plan
    from converter.recipes import RECIPES, possible

    package = wanted.package(folder / "package")
    reasons = {target: reason for target, reason in possible(package) if targets is None or target in targets}
    recipes = [RECIPES[target] for target, reason in reasons.items() if reason is None]
    cells: dict[str, Cell] = {target: {"reason": reason} for target, reason in reasons.items() if reason is not None}
    work = folder / "work"
    work.mkdir()

    class Alone(Kept):
        """Nothing is found in it; it runs what a conversion asks for, one after the other."""

        def __call__(self, writer: str, document: dict[str, Any]) -> dict[str, Any]:
            with _ONE_AT_A_TIME:
                return super().__call__(writer, document)

    kept = Alone(folder / "cache", _here)
    plan = Plan(package, recipes, "none", 0, work, lambda what, how: None, kept)
    built = build(plan)
    for report in judge_all(plan, built, Proof(package, Limits(), folder / "parity", _here)):
        if report.found is None:
            cells[report.name] = {"reason": report.reason.removeprefix("not converted: ")}
            continue
        gates = [gate.gate for gate in report.gates if gate.verdict in ("fail", "inconclusive")] if not report.kept else []
        mixed = bool((report.facts or {}).get("float_layers"))
        close = RECIPES[report.name].precision == "int8" and any(map(_close, report.gates))
        found = {"error": report.found.max_error, "kept": report.kept, "gates": gates, "mixed": mixed, "close": close}
        cells[report.name] = {**found, "why": report.reason}
    return {target: cells[target] for target in RECIPES if target in cells}


def _close(gate: "Gate") -> bool:
    if gate.limit is None or gate.value is None or gate.gate not in ("C1", "C2", "C3"):
        return False
    if gate.gate == "C2":
        return 0.8 * gate.limit <= gate.value <= 1.25 * gate.limit
    near = gate.value if gate.gate == "C1" else gate.high
    return near is not None and abs(near - gate.limit) <= 0.005


def _here(function: str, job: dict[str, Any]) -> dict[str, Any]:
    """The work of a child of the converter in this process: starting TensorFlow 200 times would take longer than all the rest."""
    from converter.isolate import ChildFailed
    from edgefleet.errors import EdgefleetError

    module, _, name = function.partition(":")
    with _ONE_AT_A_TIME:
        try:
            answer: dict[str, Any] = getattr(import_module(module), name)(job)
        except EdgefleetError as err:
            raise ChildFailed(str(err)) from err
    return answer


def fits(text: str, cell: Cell) -> bool:
    """Whether a written cell, its note resolved, says what was measured."""
    if "reason" in cell:
        return text == text_of(cell)
    if text.startswith(_LEFT_OUT) or not cell["kept"]:
        return text == text_of(cell) or bool(cell["close"])
    said, mixed = text.removesuffix(_KEPT_FLOAT), text.endswith(_KEPT_FLOAT)
    if mixed != cell["mixed"] or said.removeprefix("<= ") not in DECADES:
        return False
    bounds = list(DECADES.values())
    at = bounds.index(DECADES[said.removeprefix("<= ")])
    return bool(cell["error"] <= 2 * bounds[at] and (at == 0 or cell["error"] > bounds[at - 1] / 2))


def text_of(cell: Cell) -> str:
    """A cell in words: `exact`, a bound of the largest error, the gates that keep it out, or the reason why there is none."""
    if "reason" in cell:
        # Sizes in bytes differ from one library version to the next.
        unsized = re.sub(r"\d+ bytes instead of \d+", "no fewer bytes", str(cell["reason"]))
        return re.sub(r"\d+ bytes of \d+", "no fewer bytes", unsized)
    if not cell["kept"]:
        return _LEFT_OUT + ", ".join(cell["gates"])
    error = float(cell["error"])
    decade = next((name for name, bound in DECADES.items() if error <= bound), "3")
    return (decade if decade == EXACT else f"<= {decade}") + (_KEPT_FLOAT if cell["mixed"] else "")


def measure_apart(names: list[str], folder: Path, targets: list[str] | None = None, timeout_s: float = 800) -> dict[str, dict[str, Cell]]:
    """As `measure`, for several combinations in one child."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "wanted.json").write_text(json.dumps({"names": names, "targets": targets}))
    in_child(["-m", "tests.unit.converter.converter_parity_table", "measure", str(folder)], timeout_s)
    found: dict[str, dict[str, Cell]] = json.loads((folder / "cells.json").read_text())
    return found


def shares(count: int) -> list[list[str]]:
    """The combinations' names, dealt out to children."""
    names = list(combinations())
    return [names[i::count] for i in range(count)]


def rendered(found: dict[str, dict[str, Cell]]) -> str:
    """The table with its notes."""
    from converter.recipes import RECIPES

    notes: dict[str, int] = {}
    lines = ["| model | cleaning | " + " | ".join(f"`{target}`" for target in RECIPES) + " |", "|---" * (len(RECIPES) + 2) + "|"]
    for name, one in combinations().items():
        texts = []
        for target in RECIPES:
            text = text_of(found[name][target])
            if "reason" in found[name][target]:
                text = f"({notes.setdefault(text, len(notes) + 1)})"
            texts.append(text)
        lines.append(f"| {one.model} | {one.cleaning} | " + " | ".join(texts) + " |")
    return "\n".join([*lines, "", *(f"{number}. {note}" for note, number in notes.items())])


def written(page: str) -> dict[str, dict[str, str]]:
    """By combination and target, what a page's table says; notes are resolved."""
    table = page.partition(BEGIN)[2].partition(END)[0]
    notes = dict(re.findall(r"^(\d+)\. (.*)$", table, re.M))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")]
    targets = [cell.strip("`") for cell in rows[0][2:]]
    found = {}
    for model, cleaning, *cells in rows[2:]:
        texts = [notes.get(cell[1:-1], "") if cell.startswith("(") else cell for cell in cells]
        found[f"{model} / {cleaning}"] = dict(zip(targets, texts, strict=True))
    return found


def main(arguments: list[str]) -> None:
    if arguments[0] == "measure":
        folder = Path(arguments[1])
        wanted = json.loads((folder / "wanted.json").read_text())
        everything = combinations()
        found = {}
        for i, name in enumerate(wanted["names"]):
            (folder / str(i)).mkdir()
            found[name] = measure(everything[name], folder / str(i), wanted["targets"])
        (folder / "cells.json").write_text(json.dumps(found))
        return
    path = Path(arguments[0])
    page = path.read_text()
    before, _, rest = page.partition(BEGIN)
    count = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(count) as pool:
        parts = list(pool.map(lambda one: measure_apart(one[1], Path(name, str(one[0])), None, 3600), enumerate(shares(count))))
    cells = {name: cell for part in parts for name, cell in part.items()}
    path.write_text(f"{before}{BEGIN}\n{rendered(cells)}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main(sys.argv[1:])
