"""The list of invariants: number, sentence, where the product keeps it, and the function here that judges it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

COUNT: Final = 28


class Broken(AssertionError):
    """An invariant does not hold."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(f"invariant {number}: {what}")
        self.number = number


@dataclass(frozen=True)
class Invariant:
    """One of the 28.

    Attributes:
        sentence: What must hold, in one sentence or two.
        kept_by: Names in the product, `module:name`, without which it would not hold.
        judged_by: The function or rule that judges it, `module:name`.
        when: `commit`, `publish`, `probe` or the name of the step.
    """

    number: int
    sentence: str
    kept_by: tuple[str, ...]
    judged_by: str
    when: str


INVARIANTS: Final[dict[int, Invariant]] = {}
COMMIT_CHECKS: list[Callable[..., None]] = []
F = TypeVar("F", bound=Callable[..., Any])


def keeps(number: int, when: str, *kept_by: str) -> Callable[[F], F]:
    """Mark the function that judges an invariant; the first paragraph of its docstring is the sentence."""

    def mark(function: F) -> F:
        sentence = " ".join((function.__doc__ or "").split("\n\n")[0].split())
        if number in INVARIANTS or not 1 <= number <= COUNT or not sentence:
            raise ValueError(f"invariant {number}: marked twice, out of 1 to {COUNT}, or without a sentence")
        module = function.__module__.rsplit(".", 1)[-1]
        INVARIANTS[number] = Invariant(number, sentence, kept_by, f"{module}:{function.__name__}", when)
        if when == "commit":
            COMMIT_CHECKS.append(function)
        return function

    return mark


def require(number: int, holds: bool, what: str) -> None:
    """Raise `Broken` unless it holds."""
    if not holds:
        raise Broken(number, what)
