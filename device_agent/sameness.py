"""When two models say the same. Apart from the trial, so that a door without a fleet need not load what signed policies need."""

# A label, or a value where there are none; None is no answer.
Said = str | float | None


def same_answer(running: Said, other: Said, tolerance: float) -> bool:
    """Whether two answers are the same: equal labels, or values within the tolerance."""
    if isinstance(running, float) and isinstance(other, float):
        return abs(running - other) <= tolerance
    return running == other
