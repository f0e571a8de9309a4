"""Telemetry windows: what is in them, and that no boundary between batches, folds or windows changes a count."""

from pathlib import Path

import numpy as np
import pytest

from device_agent import Scorer
from device_agent.decision import Decision
from device_agent.telemetry.windows import WindowCollector
from edgefleet.latency import BUCKETS, OCTAVES, from_wire
from edgefleet.messages import WindowBody, decode, encode
from edgefleet.reference import score_histogram
from edgefleet.statistics import InputStatistics
from tests.unit.device_agent.bundles import forest_bundle, logistic_bundle, numbers


def test_a_window_holds_the_counts_of_its_answers(tmp_path: Path) -> None:
    made = forest_bundle(tmp_path)
    with Scorer.open(made.folder, ring_rows=32) as scorer:
        scores = [scorer.score(row) for row in made.x[:100]]
        window = scorer.take_window(2_000_000_000_000_000)
        assert window is not None
        assert window.model_digest == scorer.digest
        assert window.body.bundle_digest == scorer.bundle.digest
    body = window.body
    values = np.array([s.score for s in scores])
    assert body.answered == 100
    assert body.classes == np.bincount([s.index or 0 for s in scores], minlength=3).tolist()
    assert body.scores == score_histogram(values).tolist()
    assert body.score_sum == pytest.approx(values.sum())
    assert sum(body.latency_us) == 100
    assert body.rejected == {}
    assert window.start_at < window.end_at == 2_000_000_000_000_000
    assert decode(WindowBody, encode(body)) == body


@pytest.mark.parametrize("ring_rows", [1, 7, 256])
def test_the_ring_size_and_batches_change_no_statistic(tmp_path: Path, ring_rows: int) -> None:
    made = forest_bundle(tmp_path)
    whole = InputStatistics.empty(made.reference)
    whole.update(made.x, made.reference)
    with Scorer.open(made.folder, ring_rows=ring_rows) as scorer:
        for row in made.x[:150]:
            scorer.score(row)
        scorer.score_batch(made.x[150:390])
        for row in made.x[390:].tolist():
            scorer.score(row)
        window = scorer.take_window(1)
    assert window is not None
    seen = InputStatistics.from_bytes(window.body.statistics)
    np.testing.assert_array_equal(seen.counts, whole.counts)
    np.testing.assert_array_equal(seen.low, whole.low)
    np.testing.assert_array_equal(seen.high, whole.high)
    # Sums of float64 in another order.
    np.testing.assert_allclose(seen.total, whole.total, rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(seen.squares, whole.squares, rtol=1e-12)


def test_windows_follow_each_other_without_gap_or_overlap(tmp_path: Path) -> None:
    made = forest_bundle(tmp_path)
    with Scorer.open(made.folder) as scorer:
        scorer.score(made.x[0])
        first = scorer.take_window(3_000_000_000_000_000)
        assert scorer.take_window(3_000_000_000_000_001) is None
        scorer.score(made.x[1])
        second = scorer.take_window(3_000_000_000_000_002)
    assert first is not None
    assert second is not None
    assert second.start_at == first.end_at
    assert (first.body.answered, second.body.answered) == (1, 1)


def test_a_clock_that_went_back_ends_the_window_where_it_began(tmp_path: Path) -> None:
    made = forest_bundle(tmp_path)
    collector = WindowCollector(made.reference, Decision(3, ("low", "mid", "high")), "b", "m", start_us=1000)
    collector.reject("type")
    window = collector.take(10)
    assert window is not None
    assert (window.start_at, window.end_at) == (1000, 1000)


def test_a_window_of_refused_rows_only_is_sent(tmp_path: Path) -> None:
    collector = WindowCollector(forest_bundle(tmp_path).reference, Decision(3, ("low", "mid", "high")), "b", "m", start_us=0)
    collector.reject("type", 3)
    window = collector.take(10)
    assert window is not None
    assert (window.body.answered, window.body.rejected, window.body.latency_us) == (0, {"type": 3}, [])


def test_latencies_fall_into_power_of_two_buckets_of_microseconds(tmp_path: Path) -> None:
    collector = WindowCollector(forest_bundle(tmp_path).reference, Decision(3, ("low", "mid", "high")), "b", "m", start_us=0)
    collector.reject("type")
    collector.fold_latencies([0, 999, 1_000, 1_999, 2_000, 3_999, 4_000, 1_023_999, 1_024_000])
    window = collector.take(10)
    assert window is not None
    assert window.body.latency_us == [4, 2, 1, 0, 0, 0, 0, 0, 0, 1, 1]
    fine = from_wire(window.body.latency_eighths)
    assert fine is not None
    assert (int(fine.sum()), fine[[0, 7, 8, 15, 16]].tolist()) == (9, [1, 1, 1, 1, 1])
    collector.reject("type")
    collector.fold_latencies([10**18])
    last = collector.take(20)
    assert last is not None
    assert len(last.body.latency_us) == OCTAVES
    assert last.body.latency_eighths == [BUCKETS - 1, 1]


def test_explanations_and_self_tests_enter_no_statistic(tmp_path: Path) -> None:
    made = logistic_bundle(tmp_path, numbers())
    with Scorer.open(made.folder) as scorer:
        scorer.score(made.x[0], explain=True)
        window = scorer.take_window(1)
    assert window is not None
    assert window.body.answered == 1
    assert InputStatistics.from_bytes(window.body.statistics).rows == 1


def test_a_clock_that_leaps_years_ahead_and_back_leaves_every_window_in_order_and_the_next_ones_with_their_length(tmp_path: Path) -> None:
    collector = WindowCollector(forest_bundle(tmp_path).reference, Decision(3, ("low", "mid", "high")), "b", "m", start_us=1_000)
    ends = [2_000, 10**15, 3_000, 4_000]
    taken = []
    for end_us in ends:
        collector.reject("type")
        taken.append(collector.take(end_us))

    spans = [(window.start_at, window.end_at) for window in taken if window is not None]
    assert spans == [(1_000, 2_000), (2_000, 10**15), (10**15, 10**15), (3_000, 4_000)]
    assert sum(window.body.rejected["type"] for window in taken if window is not None) == 4
