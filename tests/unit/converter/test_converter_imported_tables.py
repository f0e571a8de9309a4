"""Imported scikit-learn pipelines that were fitted on a table with names and texts."""

from pathlib import Path

import numpy as np
import pandas
import pytest
import skops.io

from converter import convert
from converter.originals import answers_of, load_estimator
from edgefleet.manifest import Override
from edgefleet.package import ModelPackage
from trainer.importers.importing import import_model
from trainer.importers.sample import Wish


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelPackage, "pandas.DataFrame"]:
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    folder, rng = tmp_path_factory.mktemp("table"), np.random.default_rng(0)
    size, colour = rng.normal(10, 3, 600).astype(np.float32).astype(np.float64), rng.choice(["red", "blue", "green"], 600)
    table = pandas.DataFrame({"colour": colour, "size": size})
    answer = np.where((size > 10) ^ (colour == "red"), "yes", "no")
    encode = make_column_transformer((OneHotEncoder(sparse_output=False), ["colour"]), (StandardScaler(), ["size"]))
    model = make_pipeline(encode, LogisticRegression()).fit(table, answer)
    (folder / "model.skops").write_bytes(skops.io.dumps(model))
    table.assign(answer=answer).to_csv(folder / "sample.csv", index=False)
    overrides = [Override(gate=gate, reason="rows are made") for gate in ("G3", "G4")]
    wish = Wish(label="answer", minimum=0.1, name="table")
    done = import_model(folder / "model.skops", folder / "sample.csv", wish, folder / "package", overrides=overrides)
    return done.package, table


def test_the_original_is_given_its_table_with_its_texts(imported: tuple[ModelPackage, "pandas.DataFrame"]) -> None:
    package, _ = imported
    model, rows = load_estimator(package), package.rows("parity").x
    names = package.inputs()[0].categories

    found = answers_of(package, model, package.steps(), rows)

    table = pandas.DataFrame({"colour": [names[int(place)] for place in rows[:, 0]], "size": rows[:, 1].astype(np.float64)})
    assert names == ["blue", "green", "red"]
    assert np.array_equal(found.probabilities, model.predict_proba(table))


@pytest.mark.conversions
def test_a_pipeline_of_a_table_is_converted_and_proven(imported: tuple[ModelPackage, "pandas.DataFrame"], tmp_path: Path) -> None:
    bundle = convert(imported[0], ["onnx-fp32"], tmp_path / "bundle")

    assert [variant.name for variant in bundle.manifest.variants] == ["onnx-fp32"]
