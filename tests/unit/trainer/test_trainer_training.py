import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skops.io

from edgefleet.errors import ConfigError, InputError
from edgefleet.intervals import wilson
from edgefleet.manifest import Override
from edgefleet.package import ModelPackage
from edgefleet.reference import Reference
from tests.unit.trainer.conftest import DIGITS, TINY, tiny_rows
from trainer import GateRefused, Training, load_project, run_training, train
from trainer.candidates.scikit import TRUSTED_TYPES
from trainer.opened import open_predict
from trainer.runs import read_runs

Tiny = Callable[..., Path]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_digits_forest_passes_its_gates(digits_forest: Training) -> None:
    candidate = digits_forest.outcomes[0].candidate
    verdicts = {gate.gate: gate.verdict for gate in candidate.gates}

    assert candidate.metric["value"] > 0.9
    assert candidate.metric["n"] == 880
    # Four draws of each of 220 scans are no 880 independent rows: the interval is wider than theirs would be.
    assert candidate.metric["high"] - candidate.metric["low"] > np.diff(wilson(0.925 * 880, 880))[0]
    passed = {"G1": "pass", "G2": "pass", "G3": "pass", "G4": "pass"}
    assert verdicts == passed | dict.fromkeys(("G5", "G6", "G7", "G8", "G9", "G10"), "skipped")


def test_the_package_opens_with_everything_the_converter_needs(digits_forest: Training) -> None:
    package = ModelPackage.open(digits_forest.package.folder)

    assert (package.index.family, package.index.model, package.index.margin_kind) == ("forest", "model.skops", "mean leaf probability")
    assert package.index.classes == list("0123456789")
    assert package.index.shape == [8, 8]
    assert len(package.inputs()) == 64
    assert len(package.rows("golden").x) == 32
    assert len(package.rows("parity").x) == 880
    assert len(package.rows("calibration").x) == 400
    assert len(package.rows("background").x) == 16
    assert {row_id.split("-")[0] for row_id in package.rows("parity").row_id.tolist()} == {"scan"}


def test_row_sets_come_from_their_splits(digits_forest: Training) -> None:
    from examples.digits import scans

    split = scans.rows(1, ["normal"]).set_index("row_id")["split"]
    package = digits_forest.package

    assert set(split[package.rows("golden").row_id.tolist()]) == {"validation"}
    assert set(split[package.rows("parity").row_id.tolist()]) == {"validation"}
    assert set(split[package.rows("calibration").row_id.tolist()]) == {"train"}
    assert set(split[package.rows("background").row_id.tolist()]) == {"train"}


def test_calibration_rows_hold_every_class_in_proportion(digits_forest: Training) -> None:
    counts = np.bincount(digits_forest.package.rows("calibration").label, minlength=10)

    assert counts.sum() == 400
    assert counts.min() >= 30


def test_the_reference_counts_training_rows_and_validation_answers(digits_forest: Training) -> None:
    reference = Reference.from_bytes(digits_forest.package.read("reference.npz"))

    assert reference.counts[0].sum() == 4800
    assert len(reference.blocks) == 96
    assert reference.class_counts.sum() == 880
    assert reference.score_counts.sum() == 880


def test_model_skops_opens_with_the_documented_types_only(digits_forest: Training) -> None:
    content = digits_forest.package.read("model.skops")
    rows = digits_forest.package.rows("parity")

    model = skops.io.loads(content, trusted=list(TRUSTED_TYPES["forest"]))

    assert skops.io.get_untrusted_types(data=content) == list(TRUSTED_TYPES["forest"])
    validated = digits_forest.outcomes[0].candidate.answers.probabilities
    assert validated is not None
    assert np.array_equal(model.predict_proba(rows.x), validated)


def test_the_same_rows_and_settings_give_the_same_package_bytes(digits_forest: Training, tmp_path: Path) -> None:
    again = train(load_project(DIGITS), candidates=["forest"], runs_dir=tmp_path)

    assert contents(again.folder) == contents(digits_forest.package.folder)


def test_test_rows_are_reported_with_their_interval(digits_forest: Training) -> None:
    evaluation = json.loads(digits_forest.package.read("evaluation.json"))

    accuracy = evaluation["test"]["metrics"]["accuracy"]
    assert accuracy["n"] == 708
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    assert sum(map(sum, evaluation["validation"]["confusion"]["counts"])) == 880


def test_provenance_names_rows_settings_seed_and_versions_but_no_date(digits_forest: Training) -> None:
    provenance = json.loads(digits_forest.package.read("provenance.json"))

    assert provenance["project_digest"] == digits_forest.project.digest
    assert provenance["project"]["convert"]["targets"] == ["onnx-fp32", "tflite-fp32", "tflite-int8"]
    assert provenance["seed"] == 1
    assert len(provenance["data_digest"]) == 64
    assert {"edgefleet", "python", "numpy", "scikit-learn", "skops"} <= set(provenance["versions"])
    started = json.loads((digits_forest.run / "run.json").read_text())["started_at"]
    assert not [name for name, content in contents(digits_forest.package.folder).items() if started[:10].encode() in content]


def test_the_run_folder_records_phases_metrics_and_environment(digits_forest: Training) -> None:
    record = json.loads((digits_forest.run / "run.json").read_text())

    assert record["status"] == "packaged"
    assert record["winner"] == "forest"
    wanted = {"read", "judge rows", "clean for trees", "fit majority", "fit logistic", "fit forest", "judge forest", "test"}
    assert wanted <= set(record["seconds"])
    assert set(record["steps"]) == set(record["seconds"])
    assert record["rows"] == {"train": 4800, "validation": 880, "test": 708}
    assert record["package_digest"] == digits_forest.package.digest


@pytest.fixture
def shuffled(tiny: Tiny) -> Path:
    lines = tiny_rows()
    answers = np.random.default_rng(5).choice(list("xyz"), size=600)
    changed = [line.replace(f",{line.split(',')[3]},train", f",{answer},train") for line, answer in zip(lines[1:], answers, strict=True)]
    return tiny([lines[0], *changed])


def test_shuffled_labels_fail_g4_and_nothing_is_packaged(shuffled: Path) -> None:
    with pytest.raises(GateRefused, match=r"no package was written\. forest: G4 fail: .* --override-gate G4 --reason") as refused:
        run_training(load_project(shuffled))

    assert refused.value.metrics["forest"]["value"] < 0.55
    assert list(refused.value.run.rglob("package.json")) == []
    assert [record["status"] for record in read_runs(shuffled / "runs")] == ["refused"]


def test_an_overridden_gate_travels_with_the_package(shuffled: Path) -> None:
    package = train(load_project(shuffled), overrides=[Override(gate="G4", reason="bad on purpose")])

    gates = {gate["gate"]: gate for gate in json.loads(package.read("gates.json"))}
    assert package.index.overrides == [Override(gate="G4", reason="bad on purpose")]
    assert gates["G4"]["verdict"] == "overridden"
    assert gates["G4"]["sentence"].endswith("is below the minimum 0.6. Overridden (fail): bad on purpose")
    assert "bad on purpose" in package.read("card.md").decode()


def test_a_champion_is_compared_on_the_same_rows(tiny: Tiny, shuffled: Path, tmp_path: Path) -> None:
    bad = train(load_project(shuffled), overrides=[Override(gate="G4", reason="bad on purpose")], runs_dir=tmp_path / "bad")
    folder = tiny()

    good = train(load_project(folder), champion=bad.folder, runs_dir=tmp_path / "good")

    gate = next(gate for gate in json.loads(good.read("gates.json")) if gate["gate"] == "G7")
    validation = good.rows("parity")
    new = open_predict(good)(validation.x).answers() == validation.label
    old = open_predict(bad)(validation.x).answers() == validation.label
    b, c = (new & ~old).sum() + 0.5, (old & ~new).sum() + 0.5
    assert gate["verdict"] == "pass"
    assert gate["value"] == pytest.approx((b - c) / (len(new) + 2))
    assert json.loads(good.read("provenance.json"))["champion_package_digest"] == bad.digest


def test_a_worse_successor_fails_g7(tiny: Tiny, shuffled: Path, tmp_path: Path) -> None:
    broken = (shuffled / "rows.csv").read_text().splitlines()
    champion = train(load_project(tiny()), runs_dir=tmp_path / "good")
    folder = tiny(broken)

    with pytest.raises(GateRefused, match="G7 fail: Accuracy differs from the champion's by -"):
        train(load_project(folder), champion=champion.folder, overrides=[Override(gate="G4", reason="only G7 is asked here")])


def test_a_champion_with_other_inputs_is_refused(tiny: Tiny, digits_forest: Training) -> None:
    with pytest.raises(InputError, match="has other inputs than the project; train without --champion"):
        train(load_project(tiny()), champion=digits_forest.package.folder)


def test_rows_that_break_the_schema_stop_the_training_before_any_candidate(tiny: Tiny) -> None:
    lines = tiny_rows()
    lines[1] = "warm,0,0,x,train,row-0"

    with pytest.raises(GateRefused, match="rows: G1 fail: 1 of 600 rows break the schema: row 0, column a: 'warm'") as refused:
        train(load_project(tiny(lines)))

    assert list(refused.value.gates) == ["rows"]


def test_overriding_g1_trains_without_the_broken_rows(tiny: Tiny) -> None:
    lines = tiny_rows()
    lines[1] = "warm,0,0,x,train,row-0"

    package = train(load_project(tiny(lines)), overrides=[Override(gate="G1", reason="one dead sensor")])

    assert json.loads(package.read("provenance.json"))["rows"]["train"] == 299


def test_a_class_without_training_rows_is_refused(tiny: Tiny) -> None:
    lines = [line.replace(",z,train", ",y,train") for line in tiny_rows()]

    with pytest.raises(InputError, match="class 'z' has no training rows"):
        train(load_project(tiny(lines)))


def test_an_unknown_candidate_is_refused_before_any_run(tiny: Tiny) -> None:
    folder = tiny(text=TINY.replace('["forest"]', '["woods"]'))

    with pytest.raises(ConfigError, match=r"'woods' is unknown; one of .*forest"):
        train(load_project(folder))

    assert not (folder / "runs").exists()


def test_conv_refuses_rows_that_are_no_images(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match=r"needs images: shape \[3\]"):
        train(load_project(tiny()), candidates=["conv"])


def test_an_output_that_exists_is_not_overwritten(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny()

    with pytest.raises(ConfigError, match="exists already"):
        run_training(load_project(folder), output=tmp_path)
