"""Calibration rows are chosen over classes and slices with the extremes of each input, and the choice is told."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from converter.quantize.calibration import choose
from edgefleet.errors import VerdictError
from edgefleet.manifest import Input
from edgefleet.package import ModelPackage, PackageIndex, Rows, write_package


def package(folder: Path, x: NDArray[np.float32], *, task: str = "classification", missing: bool = False) -> ModelPackage:
    count = len(x)
    label = (np.arange(count) % 10 == 0).astype(np.int64) if task == "classification" else np.arange(count, dtype=np.float64)
    rows = Rows(x, label, np.where(np.arange(count) % 2 == 0, "north", "south"), np.arange(count).astype(str))
    files = {
        "schema.json": msgspec.json.encode([Input(name=f"x{i}", missing=missing) for i in range(x.shape[-1])]),
        "rows/calibration.npz": rows.to_bytes(),
        "model.skops": b"",
    }
    index = PackageIndex(
        format_version=1, project="p", task=task, model="model.skops", family="mlp", margin_kind="logit",  # type: ignore[arg-type]
        classes=["often", "seldom"] if task == "classification" else [], shape=[x.shape[-1]], overrides=[], files={},
        window_rows=x.shape[1] if x.ndim == 3 else 1,
    )  # fmt: skip
    return write_package(folder, index, files)


def normal(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(0, 1, shape).astype(np.float32)


def test_all_rows_are_taken_when_no_limit_is_set(tmp_path: Path) -> None:
    x = normal(200, 4)

    chosen = choose(package(tmp_path / "p", x))

    assert np.array_equal(chosen.x, x)
    assert chosen.facts["rows"] == chosen.facts["available"] == 200
    assert chosen.facts["inputs_covered"] == 4


def test_a_limited_choice_holds_the_extremes_of_every_input(tmp_path: Path) -> None:
    x = normal(500, 6)

    chosen = choose(package(tmp_path / "p", x), 40)

    assert len(chosen.x) == 40
    assert np.array_equal(chosen.x.min(axis=0), x.min(axis=0))
    assert np.array_equal(chosen.x.max(axis=0), x.max(axis=0))
    assert (chosen.facts["extremes"], chosen.facts["inputs_covered"]) == (12, 6)


def test_extremes_of_windows_are_taken_over_time(tmp_path: Path) -> None:
    x = normal(300, 5, 3)

    chosen = choose(package(tmp_path / "p", x), 30)

    assert np.array_equal(chosen.x.max(axis=(0, 1)), x.max(axis=(0, 1)))


def test_seldom_classes_and_every_slice_are_in_a_limited_choice_in_proportion(tmp_path: Path) -> None:
    chosen = choose(package(tmp_path / "p", np.repeat(normal(50, 1), 20, axis=0)), 100)

    # Every tenth row is seldom, and all of those are even rows: the other slice has none.
    assert sum(chosen.facts["strata"].values()) == 100
    assert set(chosen.facts["strata"]) == {"often, north", "often, south", "seldom, north"}
    assert 8 <= chosen.facts["strata"]["seldom, north"] <= 12
    assert 48 <= chosen.facts["strata"]["often, south"] <= 52


def test_targets_are_spread_over_their_quarters(tmp_path: Path) -> None:
    chosen = choose(package(tmp_path / "p", normal(400, 2), task="regression"), 40)

    quarters = [sum(count for name, count in chosen.facts["strata"].items() if name.startswith(f"quarter {q}")) for q in (1, 2, 3, 4)]
    assert sum(quarters) == 40
    assert min(quarters) >= 8


def test_the_choice_is_the_same_every_time(tmp_path: Path) -> None:
    one = package(tmp_path / "p", normal(300, 5))

    assert np.array_equal(choose(one, 50).x, choose(one, 50).x)


def test_rows_that_are_still_missing_a_value_behind_the_steps_are_not_chosen(tmp_path: Path) -> None:
    x = normal(100, 3)
    x[::4, 1] = np.nan

    chosen = choose(package(tmp_path / "p", x, missing=True))

    assert chosen.facts["unusable"] == 25
    assert np.isfinite(chosen.x).all()


@pytest.mark.parametrize(
    ("rows", "limit", "reason"), [(15, 0, "15 calibration rows are too few"), (100, 10, "10 calibration rows are too few")]
)
def test_too_few_rows_are_refused_with_their_number(rows: int, limit: int, reason: str, tmp_path: Path) -> None:
    with pytest.raises(VerdictError, match=f"{reason}, at least 16 are needed"):
        choose(package(tmp_path / "p", normal(rows, 3)), limit)


def test_rows_that_are_all_the_same_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VerdictError, match="all 40 calibration rows are the same"):
        choose(package(tmp_path / "p", np.ones((40, 3), np.float32)))
