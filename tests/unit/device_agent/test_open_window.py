"""The open window: pieces merge exactly, a snapshot survives, and its rows are counted once whatever operation was the last."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from device_agent import Scorer
from device_agent.telemetry.merging import merge_windows
from device_agent.telemetry.open_window import MAX_WINDOWS, SNAPSHOT_NAME, OpenWindow
from device_agent.telemetry.spool import Spool
from device_agent.telemetry.windows import Window
from device_agent.update.disk import Disk
from edgefleet.errors import InputError, StorageError
from edgefleet.messages import Acked, AttributionSums, Telemetry, WindowBody, decode, encode
from edgefleet.reference import build_reference
from edgefleet.statistics import InputStatistics
from tests.unit.device_agent.bundles import forest_bundle, numbers, training_rows

REFERENCE = build_reference(training_rows(100)[0], numbers(), block_rows=10)


class Cut(BaseException):
    """The process ends here: nothing catches it."""


class Cutting:
    """Ends the process before the given operation."""

    def __init__(self, operation: int) -> None:
        self.left = operation

    def __call__(self, name: str, path: Path) -> None:
        if self.left == 0:
            raise Cut
        self.left -= 1


def window(rows: int, start_at: int = 0, model: str = "m") -> Window:
    statistics = InputStatistics.empty(REFERENCE)
    statistics.update(training_rows(rows, seed=rows)[0], REFERENCE)
    body = WindowBody(
        bundle_digest="b", statistics=statistics.to_bytes(), answered=rows, classes=[rows], scores=[], latency_us=[], score_sum=0.5
    )
    return Window(start_at=start_at, end_at=start_at + 10, model_digest=model, body=body)


def putter(spool: Spool) -> Callable[[Window], None]:
    return lambda w: (spool.offer("window", "tiny", w.model_digest, w.start_at, w.end_at, encode(w.body)), None)[1]


def spooled(folder: Path) -> list[Telemetry]:
    spool = Spool(folder / "spool", 99, 10**6, Disk())
    records = [decode(Telemetry, message) for _, message in spool.to_send()]
    return [record for record in records if record.kind == "window"]


def rows_in(records: list[Telemetry]) -> int:
    return sum(decode(WindowBody, record.body).answered for record in records)


def test_pieces_of_a_window_merge_to_what_one_window_would_have_said(tmp_path: Path) -> None:
    made = forest_bundle(tmp_path)
    with Scorer.open(made.folder, ring_rows=16) as whole, Scorer.open(made.folder, ring_rows=16) as parts:
        taken = []
        for i, row in enumerate(made.x[:200]):
            whole.score(row)
            parts.score(row)
            if i % 37 == 0:
                taken.append(parts.take_window())
        taken.append(parts.take_window())
        expected = whole.take_window()
    assert expected is not None
    merged = taken[-1]
    for piece in taken[-2::-1]:
        assert piece is not None
        assert merged is not None
        merged = merge_windows(merged, piece)

    assert merged is not None
    body, said = merged.body, expected.body
    assert (body.answered, body.classes, body.scores, body.rejected) == (said.answered, said.classes, said.scores, said.rejected)
    assert (sum(body.latency_us), sum(body.latency_eighths[1:])) == (200, 200)
    a, b = InputStatistics.from_bytes(body.statistics), InputStatistics.from_bytes(said.statistics)
    np.testing.assert_array_equal(a.counts, b.counts)
    np.testing.assert_allclose(a.total, b.total, rtol=1e-12, atol=1e-10)
    assert merged.start_at <= expected.start_at + 10**6
    assert body.score_sum == pytest.approx(said.score_sum)


def test_windows_of_two_models_do_not_merge() -> None:
    with pytest.raises(InputError, match="a window of model other cannot merge into one of model m"):
        merge_windows(window(3), window(3, model="other"))


def test_attribution_sums_add_up_where_only_some_pieces_have_them(tmp_path: Path) -> None:
    sums = AttributionSums(rows=2, total=[1.0, -1.0], absolute=[1.0, 1.0], skipped=1)
    plain = window(3)
    explained = Window(
        start_at=0,
        end_at=1,
        model_digest="m",
        body=WindowBody(
            **{f: getattr(plain.body, f) for f in ("bundle_digest", "statistics", "answered", "classes", "scores", "latency_us")},
            attribution=sums,
        ),
    )

    merged = merge_windows(merge_windows(explained, plain), explained).body.attribution

    assert merged == AttributionSums(rows=4, total=[2.0, -2.0], absolute=[2.0, 2.0], skipped=2)


def scenario(folder: Path, disk: Disk, boot: int, arrived: list[int]) -> None:
    """Three windows of two pieces each, each piece kept; `arrived` counts rows that a finished `keep` or `close` vouches for."""
    spool = Spool(folder / "spool", boot, 10**6, disk)
    opened = OpenWindow(folder, boot, spool, disk)
    opened.recover(putter(spool))
    for turn in range(3):
        for piece in range(2):
            spool.put("event", "tiny", "", 1, 1, b"x")
            opened.add([window(10 + turn, start_at=100 * turn + piece)])
            opened.keep()
            arrived[0] += 10 + turn
        opened.close(putter(spool))


def test_every_kept_row_is_counted_once_whatever_disk_operation_was_the_last(tmp_path: Path) -> None:
    finished, cuts = False, 0
    while not finished:
        folder = tmp_path / str(cuts)
        folder.mkdir()
        vouched = [0]
        try:
            scenario(folder, Disk(Cutting(cuts)), 1, vouched)
            finished = True
        except Cut:
            pass
        restarted = Spool(folder / "spool", 2, 10**6, Disk())
        OpenWindow(folder, 2, restarted, Disk()).recover(putter(restarted))
        found = rows_in(spooled(folder))
        # The piece whose `keep` was cut may be there or not; nothing else is in doubt.
        assert found in {vouched[0], vouched[0] + 10, vouched[0] + 11, vouched[0] + 12}, cuts
        assert not (folder / SNAPSHOT_NAME).exists()
        cuts += 1

    assert cuts > 40
    assert found == 66


def test_a_recovery_that_is_cut_itself_counts_nothing_twice(tmp_path: Path) -> None:
    for cut in range(12):
        folder = tmp_path / str(cut)
        folder.mkdir()
        first = Spool(folder / "spool", 1, 10**6, Disk())
        opened = OpenWindow(folder, 1, first, Disk())
        opened.add([window(10), window(7, model="other")])
        opened.keep()
        for boot in (2, 3):
            disk = Disk(Cutting(cut)) if boot == 2 else Disk()
            try:
                spool = Spool(folder / "spool", boot, 10**6, disk)
                OpenWindow(folder, boot, spool, disk).recover(putter(spool))
            except Cut:
                pass
        assert rows_in(spooled(folder)) == 17, cut


def test_a_disk_that_refuses_delays_a_window_and_loses_none_of_it(tmp_path: Path) -> None:
    def full(_name: str, path: Path) -> None:
        if closed[0]:
            raise OSError(28, "No space left on device")

    closed = [False]
    spool = Spool(tmp_path / "spool", 1, 10**6, Disk(full))
    opened = OpenWindow(tmp_path, 1, spool, Disk(full))
    opened.add([window(10)])
    closed[0] = True
    with pytest.raises(StorageError, match="the disk is full"):
        opened.close(putter(spool))
    opened.add([window(11)])
    closed[0] = False
    opened.close(putter(spool))

    assert (rows_in(spooled(tmp_path)), spool.dropped, opened.rows) == (21, 0, 0)


class Refusing:
    """Puts windows into a spool as long as they are not of the model that the disk has no room for."""

    def __init__(self, spool: Spool) -> None:
        self.put, self.model = putter(spool), "other"

    def __call__(self, one: Window) -> None:
        if one.model_digest == self.model:
            raise StorageError("the disk is full")
        self.put(one)


@pytest.mark.parametrize("recovering", [False, True])
def test_of_two_windows_of_which_the_disk_takes_one_neither_is_counted_twice(tmp_path: Path, recovering: bool) -> None:
    spool = Spool(tmp_path / "spool", 1, 10**6, Disk())
    opened = OpenWindow(tmp_path, 1, spool, Disk())
    opened.add([window(10), window(7, model="other")])
    opened.keep()
    if recovering:
        spool = Spool(tmp_path / "spool", 2, 10**6, Disk())
        opened = OpenWindow(tmp_path, 2, spool, Disk())
    put = Refusing(spool)
    with pytest.raises(StorageError, match="the disk is full"):
        (opened.recover if recovering else opened.close)(put)
    assert (opened.rows, opened.rows_not_kept, rows_in(spooled(tmp_path))) == (7, 7, 10)
    assert spool.acknowledge(Acked(stored=[(2 if recovering else 1, spool.last_seq)])) == 1

    killed = Spool(tmp_path / "spool", 3, 10**6, Disk())
    OpenWindow(tmp_path, 3, killed, Disk()).recover(putter(killed))
    assert rows_in(spooled(tmp_path)) == 0  # those that were acknowledged do not come again

    put.model = ""
    opened.close(put)
    assert (opened.rows, rows_in(spooled(tmp_path))) == (0, 7)


@pytest.mark.parametrize("damage", [b"", b"\x00" * 64, b"noise" * 1000])
def test_a_damaged_snapshot_costs_itself_only(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / SNAPSHOT_NAME).write_bytes(damage)
    spool = Spool(tmp_path / "spool", 1, 10**6, Disk())
    opened = OpenWindow(tmp_path, 1, spool, Disk())
    opened.recover(putter(spool))
    opened.add([window(10)])
    opened.close(putter(spool))

    assert rows_in(spooled(tmp_path)) == 10
    assert not (tmp_path / SNAPSHOT_NAME).exists()


def test_memory_is_that_of_four_models_and_what_is_given_up_is_counted(tmp_path: Path) -> None:
    opened = OpenWindow(tmp_path, 1, Spool(tmp_path / "spool", 1, 10**6, Disk()), Disk())
    for i in range(MAX_WINDOWS + 3):
        opened.add([window(10, model=f"m{i}")])

    assert (opened.rows, opened.lost) == (10 * MAX_WINDOWS, 3)
