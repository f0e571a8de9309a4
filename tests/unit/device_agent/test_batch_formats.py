"""Rows of CSV, NDJSON and Parquet: the same rows get the same answers, one a row, in order, whatever the formats."""

import json
from pathlib import Path

import numpy as np
import pytest

from device_agent import Scorer
from edgefleet.errors import ConfigError, InputError, MissingPartError
from edgefleet.manifest import Input
from tests.unit.device_agent.batch_world import HEADER, NAMES, child, csv_text, lines_of, ndjson_text, rows, score, table_of
from tests.unit.device_agent.bundles import logistic_bundle, numbers


def inputs_of(folder: Path, n: int) -> dict[str, Path]:
    """The same rows in three formats."""
    import pyarrow
    import pyarrow.parquet

    x = rows(n)
    (folder / "in.csv").write_text(csv_text(x))
    (folder / "in.ndjson").write_text(ndjson_text(x))
    pyarrow.parquet.write_table(pyarrow.table({name: x[:, i] for i, name in enumerate(NAMES)}), folder / "in.parquet", row_group_size=700)
    return {kind: folder / f"in.{kind}" for kind in ("csv", "ndjson", "parquet")}


def test_the_same_rows_give_the_same_bytes_whatever_the_input_format(tmp_path: Path) -> None:
    bundle, sources = logistic_bundle(tmp_path / "bundle", columns=3).folder, inputs_of(tmp_path, 2500)
    for written in ("csv", "ndjson", "parquet"):
        found = set()
        for kind, source in sources.items():
            output = tmp_path / f"out-{kind}.{written}"
            assert score(bundle, source, output, probabilities=True).tally.scored == 2500
            found.add(output.read_bytes())
        assert len(found) == 1, written


def test_every_answer_says_row_label_score_margin_probabilities_and_digest_as_the_scorer_does(tmp_path: Path) -> None:
    import pyarrow.parquet

    made, sources = logistic_bundle(tmp_path / "bundle", columns=3), inputs_of(tmp_path, 1500)
    with Scorer.open(made.folder) as scorer:
        want, digest = scorer.score_batch(rows(1500)), scorer.digest
    for written in ("csv", "ndjson", "parquet"):
        score(made.folder, sources["csv"], tmp_path / f"out.{written}", probabilities=True)
    from_json = lines_of(tmp_path / "out.ndjson")
    from_csv = table_of(tmp_path / "out.csv")
    from_parquet = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    for i in (0, 1, 1023, 1024, 1499):
        line = from_json[i]
        assert (line["row"], line["status"], line["label"], line["digest"]) == (i + 1, "ok", want.label[i], digest)
        # The shortest text of a float32 reads back to the same float32.
        assert (np.float32(line["score"]), np.float32(line["margin"])) == (want.score[i], want.margin[i])
        assert [np.float32(value) for value in line["probabilities"].values()] == want.probabilities[i].tolist()
        assert (int(from_csv[i]["row"]), from_csv[i]["label"], float(from_csv[i]["p_c1"])) == (
            i + 1,
            want.label[i],
            line["probabilities"]["c1"],
        )
        assert (from_parquet[i]["row"], from_parquet[i]["label"]) == (i + 1, want.label[i])
        assert np.float32(from_parquet[i]["p_c0"]) == want.probabilities[i, 0]
    assert [len(found) for found in (from_json, from_csv, from_parquet)] == [1500] * 3


def test_columns_are_found_by_name_and_others_are_ignored(tmp_path: Path) -> None:
    bundle = logistic_bundle(tmp_path / "bundle").folder
    (tmp_path / "a.csv").write_text(HEADER + "1,2,3,4,5\n")
    (tmp_path / "b.csv").write_text('machine,f4,f3, f2 ,f1,f0\n"press, 1",5,4,3,2,1\n')

    for name in ("a", "b"):
        score(bundle, tmp_path / f"{name}.csv", tmp_path / f"{name}.ndjson")

    assert lines_of(tmp_path / "a.ndjson") == lines_of(tmp_path / "b.ndjson")


def test_an_empty_cell_and_declared_words_are_missing_values_and_nothing_else_is(tmp_path: Path) -> None:
    inputs = [Input(name=name, missing=True) for name in NAMES]
    bundle = logistic_bundle(tmp_path / "bundle", inputs).folder
    (tmp_path / "in.csv").write_text(HEADER + "1,2,,4,5\n1,2,NA,4,5\n1,2,-999,4,5\n1,2,n/a,4,5\n1_0,2,3,4,5\n")

    outcome = score(bundle, tmp_path / "in.csv", tmp_path / "out.ndjson", missing=("NA", "-999"))

    lines = lines_of(tmp_path / "out.ndjson")
    # This model answers NaN for a missing value: no label, and a null where a number would stand.
    assert [line.get("label", "-") for line in lines] == [None, None, None, "-", "-"]
    assert [line["score"] for line in lines[:3]] == [None] * 3
    assert [line["reason"] for line in lines[3:]] == ["type", "type"]
    assert (outcome.tally.scored, outcome.tally.rejected) == (3, {"type": 2})


def test_texts_of_categories_are_taken_from_every_format(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    inputs = [Input(name="f0", kind="category", categories=["red", "blue, dark"]), *numbers()[1:]]
    bundle = logistic_bundle(tmp_path / "bundle", inputs).folder
    (tmp_path / "in.csv").write_text(HEADER + 'red,1,1,1,1\n"blue, dark",1,1,1,1\ngreen,1,1,1,1\n')
    (tmp_path / "in.ndjson").write_text('["red",1,1,1,1]\n["blue, dark",1,1,1,1]\n["green",1,1,1,1]\n')
    texts = pyarrow.array(["red", "blue, dark", "green"]).dictionary_encode()
    ones = {name: np.ones(3) for name in NAMES[1:]}
    pyarrow.parquet.write_table(pyarrow.table({"f0": texts, **ones}), tmp_path / "in.parquet")

    for kind in ("csv", "ndjson", "parquet"):
        score(bundle, tmp_path / f"in.{kind}", tmp_path / f"{kind}.ndjson")

    answers = [lines_of(tmp_path / f"{kind}.ndjson") for kind in ("csv", "ndjson", "parquet")]
    assert answers[0] == answers[1] == answers[2]
    assert len({line["score"] for line in answers[0]}) == 3


def test_an_explanation_is_a_sentence_and_a_list_of_the_strongest(tmp_path: Path) -> None:
    inputs = numbers(unit="mm/s")
    made = logistic_bundle(tmp_path / "bundle", inputs, columns=3)
    (tmp_path / "in.csv").write_text(csv_text(rows(20)))

    score(made.folder, tmp_path / "in.csv", tmp_path / "out.ndjson", top=2)

    with Scorer.open(made.folder) as scorer:
        for line, row in zip(lines_of(tmp_path / "out.ndjson"), rows(20), strict=True):
            want = scorer.score(row, explain=True)
            assert want.explanation is not None
            assert [(one["input"], one["contribution"]) for one in line["explanation"]] == [
                (name, round(value, 6)) for name, value in want.explanation.top(2)
            ]
            name, value = want.explanation.top(1)[0]
            unit = " mm/s" if name == "f0" else ""
            moved = f"pushed {'towards' if value > 0 else 'away from'} {want.label} by {value:+.2g}"
            assert line["explanation_text"].split("; ")[0] == f"{name} {row[int(name[1])]:.4g}{unit} {moved}"


def test_a_format_that_no_name_tells_is_asked_for(tmp_path: Path) -> None:
    bundle = logistic_bundle(tmp_path / "bundle").folder
    (tmp_path / "in.txt").write_text(csv_text(rows(3)))

    with pytest.raises(ConfigError, match="--format csv"):
        score(bundle, tmp_path / "in.txt", tmp_path / "out.csv")
    assert score(bundle, tmp_path / "in.txt", tmp_path / "out.csv", source_format="csv").tally.scored == 3


def test_an_explanation_of_a_variant_without_one_is_refused_before_the_first_row(tmp_path: Path) -> None:
    from tests.unit.device_agent.bundles import regression_graph, training_rows, write_bundle

    x, _ = training_rows()
    write_bundle(tmp_path / "bundle", regression_graph(np.ones(5, np.float32)), x, numbers(), [])
    (tmp_path / "in.csv").write_text(csv_text(rows(3)))

    with pytest.raises(ConfigError, match="carries no explainer"):
        score(tmp_path / "bundle", tmp_path / "in.csv", tmp_path / "out.csv", top=3)
    assert not (tmp_path / "out.csv").exists()


def test_parquet_without_pyarrow_names_the_line_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, sources = logistic_bundle(tmp_path / "bundle").folder, inputs_of(tmp_path, 3)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)

    with pytest.raises(MissingPartError, match=r"pip install 'edgefleet\[parquet\]'"):
        score(bundle, sources["parquet"], tmp_path / "out.csv")
    assert score(bundle, sources["csv"], tmp_path / "out.csv").tally.scored == 3


@pytest.mark.parametrize(("name", "content"), [("in.parquet", b"PAR1 no"), ("in.parquet", b"")])
def test_what_is_no_parquet_file_is_an_input_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="is no Parquet file"):
        score(logistic_bundle(tmp_path / "bundle").folder, tmp_path / name, tmp_path / "out.csv")


def test_a_parquet_column_of_another_type_is_refused_by_name(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({**{name: [1.0] for name in NAMES}, "f2": ["text"]}), tmp_path / "in.parquet")
    with pytest.raises(InputError, match="column 'f2' is string; expected numbers"):
        score(logistic_bundle(tmp_path / "bundle").folder, tmp_path / "in.parquet", tmp_path / "out.csv")


def test_nulls_and_whole_numbers_of_parquet_are_read_as_they_are(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({**{name: [1, 2] for name in NAMES}, "f2": pyarrow.array([True, None])})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    score(logistic_bundle(tmp_path / "bundle").folder, tmp_path / "in.parquet", tmp_path / "out.ndjson")
    assert [line.get("reason", "ok") for line in lines_of(tmp_path / "out.ndjson")] == ["ok", "missing"]


def test_the_summary_counts_every_row_and_bad_rows_make_exit_code_3(tmp_path: Path) -> None:
    bundle = logistic_bundle(tmp_path / "bundle").folder
    (tmp_path / "in.csv").write_text(csv_text(rows(3)) + "1,2\nx,2,3,4,5\n")

    done = child("--bundle", bundle, tmp_path / "in.csv", "--output", tmp_path / "out.csv", "--bad", tmp_path / "bad.csv", "--json")

    summary = json.loads(done.stdout)
    assert done.returncode == 3
    assert (summary["offered"], summary["scored"], summary["rejected"]) == (5, 3, {"count": 1, "type": 1})
    assert summary["seconds"] > 0
    bad = table_of(tmp_path / "bad.csv")
    assert [(row["row"], row["line"], row["feature"], row["reason"]) for row in bad] == [("4", "5", "", "count"), ("5", "6", "f0", "type")]
    assert [row["status"] for row in table_of(tmp_path / "out.csv")] == ["ok"] * 3 + ["rejected"] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv", "bundle", "in.csv", "out.csv", "out.csv.journal"]
