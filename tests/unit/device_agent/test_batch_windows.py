"""Single rows for a model of windows: each row is answered once its window is full, per group, and nothing reaches over a gap."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device_agent import Scorer
from device_agent.doors.batch.rows import Position
from edgefleet.errors import ConfigError
from tests.unit.device_agent.batch_world import NAMES, csv_text, lines_of, rows, score, table_of
from tests.unit.device_agent.test_scorer_windows import ROWS, window_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return window_bundle(tmp_path_factory.mktemp("bundle")).folder


def answers_of(bundle: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores of the windows that end with row T, T + 1, ... of consecutive rows."""
    with Scorer.open(bundle) as scorer:
        return scorer.score_batch(np.stack([x[i : i + ROWS] for i in range(len(x) - ROWS + 1)])).score


def with_columns(x: NDArray[np.float32], **columns: list[object]) -> str:
    lines = csv_text(x).splitlines()
    for name, values in columns.items():
        lines = [f"{line},{value}" for line, value in zip(lines, [name, *values], strict=True)]
    return "\n".join(lines) + "\n"


def test_every_row_is_scored_once_its_window_is_full_also_across_chunks(bundle: Path, tmp_path: Path) -> None:
    x = rows(3000)
    (tmp_path / "in.csv").write_text(csv_text(x))

    outcome = score(bundle, tmp_path / "in.csv", tmp_path / "out.ndjson")

    lines = lines_of(tmp_path / "out.ndjson")
    assert [line["status"] for line in lines] == ["warming_up"] * (ROWS - 1) + ["ok"] * (3000 - ROWS + 1)
    assert lines[1]["waiting"] == f"warming_up, 2 of {ROWS}"
    # Windows are batched otherwise than in the oracle, which may change the last bit of a product.
    np.testing.assert_allclose([line["score"] for line in lines[ROWS - 1 :]], answers_of(bundle, x), rtol=1e-5)
    assert (outcome.tally.offered, outcome.tally.scored, outcome.tally.warming_up) == (3000, 3000 - ROWS + 1, ROWS - 1)


@pytest.mark.parametrize("kind", ["csv", "ndjson", "parquet"])
def test_windows_are_made_within_a_group(bundle: Path, tmp_path: Path, kind: str) -> None:
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    x = rows(40)
    group = ["a" if i % 3 else "b" for i in range(40)]
    (tmp_path / "in.csv").write_text(with_columns(x, machine=[*group]))
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(tmp_path / "in.csv"), tmp_path / "in.parquet")
    rows_of = pyarrow.csv.read_csv(tmp_path / "in.csv").to_pylist()
    (tmp_path / "in.ndjson").write_text("".join(str(row).replace("'", '"') + "\n" for row in rows_of))

    score(bundle, tmp_path / f"in.{kind}", tmp_path / "out.csv", group="machine")

    lines = table_of(tmp_path / "out.csv")
    for name in "ab":
        mine = [i for i in range(40) if group[i] == name]
        assert [lines[i]["status"] for i in mine[: ROWS - 1]] == ["warming_up"] * (ROWS - 1)
        np.testing.assert_allclose([float(lines[i]["score"]) for i in mine[ROWS - 1 :]], answers_of(bundle, x[mine]), rtol=1e-5)


def test_a_refused_row_and_a_gap_in_time_empty_the_window(bundle: Path, tmp_path: Path) -> None:
    times = [0, 1, 2, 3, 9, 10, 11, 12, 13, 11, 12, 13]
    text = with_columns(rows(12), at=[*times]).splitlines()
    text[8] = "x" + text[8]
    (tmp_path / "in.csv").write_text("\n".join(text) + "\n")

    score(bundle, tmp_path / "in.csv", tmp_path / "out.ndjson", time="at", max_gap_s=2.0)

    statuses = [line["status"] for line in lines_of(tmp_path / "out.ndjson")]
    wait = "warming_up"
    assert statuses == [wait, wait, "ok", "ok", wait, wait, "ok", "rejected", wait, wait, wait, "ok"]


@pytest.mark.parametrize("wrong", ["value", "time"])
@pytest.mark.parametrize("kind", ["csv", "ndjson"])
def test_a_refused_row_empties_the_window_of_its_own_group_only(bundle: Path, tmp_path: Path, kind: str, wrong: str) -> None:
    group = ["a", "b"] * 7
    values: list[dict[str, Any]] = [
        {**dict(zip(NAMES, row, strict=True)), "machine": group[i], "at": i} for i, row in enumerate(rows(14).tolist())
    ]
    values[8]["f0" if wrong == "value" else "at"] = "soon"
    lines = [json.dumps(one) if kind == "ndjson" else ",".join(map(str, one.values())) for one in values]
    (tmp_path / f"in.{kind}").write_text("\n".join(lines if kind == "ndjson" else [",".join([*NAMES, "machine", "at"]), *lines]) + "\n")

    score(bundle, tmp_path / f"in.{kind}", tmp_path / "out.ndjson", group="machine", time="at")

    statuses = [line["status"] for line in lines_of(tmp_path / "out.ndjson")]
    wait = "warming_up"
    assert statuses[0::2] == [wait, wait, "ok", "ok", "rejected", wait, wait]
    assert statuses[1::2] == [wait, wait, "ok", "ok", "ok", "ok", "ok"]


def test_a_time_that_is_none_refuses_its_row(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(with_columns(rows(3), at=["2026-05-31T12:00:00Z", "noon", "2026-05-31 12:00:02"]))

    outcome = score(bundle, tmp_path / "in.csv", tmp_path / "out.ndjson", time="at", bad=tmp_path / "bad.ndjson")

    (bad,) = lines_of(tmp_path / "bad.ndjson")
    assert (bad["row"], bad["feature"], bad["value"]) == (2, "at", "'noon'")
    assert outcome.tally.rejected == {"type": 1}


def test_windows_survive_an_interruption(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(with_columns(rows(3000), machine=[i % 7 for i in range(3000)], at=[*range(3000)]))
    wishes: dict[str, Any] = {"group": "machine", "time": "at", "max_gap_s": 100.0}
    score(bundle, tmp_path / "in.csv", tmp_path / "whole.csv", **wishes)

    def once(_: Position, __: int | None) -> bool:
        return True

    score(bundle, tmp_path / "in.csv", tmp_path / "out.csv", said=once, **wishes)
    last = score(bundle, tmp_path / "in.csv", tmp_path / "out.csv", resume=True, **wishes)

    assert last.resumed_at == 1024
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_an_explanation_of_a_window_tells_its_newest_row(bundle: Path, tmp_path: Path) -> None:
    x = rows(5)
    (tmp_path / "in.csv").write_text(csv_text(x))

    score(bundle, tmp_path / "in.csv", tmp_path / "out.ndjson", top=5)

    last = lines_of(tmp_path / "out.ndjson")[-1]
    told = {one["input"]: one["value"] for one in last["explanation"]}
    assert told == {name: pytest.approx(float(x[-1, i]), rel=1e-6) for i, name in enumerate(NAMES)}


@pytest.mark.parametrize(
    ("wishes", "words"),
    [({"max_gap_s": 3.0}, "--max-gap needs --time"), ({"group": "f0"}, "is an input of the model")],
)
def test_wishes_that_contradict_the_model_are_refused(bundle: Path, tmp_path: Path, wishes: dict[str, Any], words: str) -> None:
    (tmp_path / "in.csv").write_text(csv_text(rows(5)))
    with pytest.raises(ConfigError, match=words):
        score(bundle, tmp_path / "in.csv", tmp_path / "out.csv", **wishes)
