"""The model card's last chapter: what was converted, how it fared, what was refused. Nothing in it depends on clock or host."""

from collections.abc import Sequence
from typing import Protocol

from converter.comparing import METRICS, Comparison
from edgefleet.package import ModelPackage


class Outcome(Protocol):
    """What the card needs to know of a target; `converter.conversion.VariantReport` is one."""

    @property
    def name(self) -> str:
        """Target."""

    @property
    def verdict(self) -> str:
        """Verdict."""

    @property
    def kept(self) -> bool:
        """Whether it is in the bundle."""

    @property
    def reason(self) -> str:
        """Why not."""

    @property
    def size_bytes(self) -> int:
        """Of the graph."""

    @property
    def found(self) -> Comparison | None:
        """Comparison with the original."""


def card_text(package: ModelPackage, outcomes: Sequence[Outcome], notes: Sequence[str]) -> str:
    """The package's card with a chapter on the variants."""
    lines = [package.read("card.md").decode("utf-8", "replace").rstrip(), "", "## Variants", ""]
    metric = METRICS[package.index.task]
    lines += [f"| variant | bytes | same answer | largest error | {metric} | verdict |", "|---|---|---|---|---|---|"]
    lines += [_line(outcome) for outcome in outcomes]
    if compared := [outcome.found for outcome in outcomes if outcome.found]:
        known = _number(compared[0].value_original)
        lines += ["", f"Compared with the trained model ({metric} {known}) on the parity rows, by the scorer that devices run."]
    # The reasons of refused variants may name latencies of the converting machine; those stay in the report.
    lines += ["", *notes] if notes else []
    return "\n".join(lines) + "\n"


def _line(outcome: Outcome) -> str:
    found, verdict = outcome.found, outcome.verdict if outcome.kept else f"refused ({outcome.verdict})"
    if found is None:
        return f"| {outcome.name} | - | - | - | - | {verdict} |"
    same = f"{found.agreed} of {found.n}"
    return f"| {outcome.name} | {outcome.size_bytes} | {same} | {found.max_error:.1g} | {_number(found.value)} | {verdict} |"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
