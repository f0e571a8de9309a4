"""Comparisons add up like the rows they were counted from, in any order and however they were cut."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.doors.comparison import Comparison, Heard
from edgefleet.manifest import Manifest
from edgefleet.shadow_counts import MAX_PAIRS, ShadowCounts
from tests.unit.device_agent.agent_world import make_bundle, weights

CLASSES = ["low", "mid", "high"]
ANSWER = st.one_of(st.none(), st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3))
PAIRS = st.lists(st.tuples(ANSWER, ANSWER), max_size=30)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_bundle(tmp_path_factory.mktemp("bundle"), weights(1)).manifest


def said(shares: list[float] | None) -> Heard | None:
    if shares is None:
        return None
    p = np.array(shares) / sum(shares)
    return Heard(CLASSES[int(p.argmax())], float(p.max()), p)


def counted(manifest: Manifest, pairs: list[tuple[list[float] | None, list[float] | None]], shed: int = 0) -> ShadowCounts:
    comparison = Comparison((manifest, "a"), (manifest, "b"), 0.0)
    for ours, theirs in pairs:
        comparison.add(said(ours), said(theirs))
    comparison.shed(shed)
    return comparison.take() or ShadowCounts(running="a", shadow="b")


@given(PAIRS, st.integers(0, 30), st.integers(0, 5))
def test_the_parts_merged_are_the_whole_and_every_row_is_somewhere(
    manifest: Manifest, pairs: list[tuple[list[float] | None, list[float] | None]], cut: int, shed: int
) -> None:
    whole = counted(manifest, pairs, shed)
    one, other = counted(manifest, pairs[:cut], shed), counted(manifest, pairs[cut:])

    for merged in (one.merge(other), other.merge(one)):
        assert merged.difference_sum == pytest.approx(whole.difference_sum, abs=1e-12)
        assert merged.difference_square_sum == pytest.approx(whole.difference_square_sum, abs=1e-12)
        for name in ("offered", "compared", "agreed", "running_failed", "shadow_failed", "both_failed", "shed", "differences", "confusion"):
            assert getattr(merged, name) == getattr(whole, name)
    assert (
        whole.offered == whole.compared + whole.running_failed + whole.shadow_failed + whole.both_failed + whole.shed == len(pairs) + shed
    )
    assert sum(rows for _, _, rows in whole.confusion) + whole.confusion_rest == whole.compared
    assert math.isnan(whole.agreement) or 0.0 <= whole.agreement <= 1.0


def test_pairs_beyond_the_limit_are_counted_together() -> None:
    one = ShadowCounts(running="a", shadow="b", compared=300, confusion=[(i, 0, 2) for i in range(150)])
    other = ShadowCounts(running="a", shadow="b", compared=150, confusion=[(i, 1, 1) for i in range(150)])
    merged = one.merge(other)
    assert len(merged.confusion) == MAX_PAIRS
    assert sum(rows for _, _, rows in merged.confusion) + merged.confusion_rest == 450


def test_counts_of_other_models_do_not_add_up() -> None:
    with pytest.raises(ValueError, match="do not add up"):
        ShadowCounts(running="a", shadow="b").merge(ShadowCounts(running="a", shadow="c"))
