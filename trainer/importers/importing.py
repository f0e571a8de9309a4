"""`edgefleet import`: from a model made elsewhere and a labelled data sample to a model package, through the same gates.

The sample is split in halves: one stands for the training rows (reference statistics, outlier detector), the other is what the gates judge.
The model's own training rows stay unknown, which the package's provenance and card say.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ConfigError, InputError, VerdictError
from edgefleet.manifest import Override
from edgefleet.package import ModelPackage
from edgefleet.signature import Signature
from trainer.candidates.fitted import Fitted, Predict
from trainer.dataset import DataSet
from trainer.importers.found import Found, find_model
from trainer.importers.outputs import choose_output, meant
from trainer.importers.sample import Wish, project_for, task_of
from trainer.importers.signature import Description, plain
from trainer.importers.tensors import row_sides
from trainer.new_rows import new_rows
from trainer.opened import IN_CHILD, foreign_predict, in_child, run_in_child
from trainer.project import Project
from trainer.table_checks import plain_texts

if TYPE_CHECKING:
    import pandas

    from trainer.gates import Gate

LEAST_ROWS: Final = 40
FEW_ROWS: Final = 256
_MARGINS: Final = {"logits": "logit", "logit": "logit", "value": "target unit", "score": "anomaly score", "reconstruction": "anomaly score"}


@dataclass(frozen=True)
class Imported:
    """An imported model. `gates` are all gates, people's overrides applied."""

    package: ModelPackage
    description: Description
    signature: Signature
    gates: "list[Gate]"
    metric: dict[str, Any]


class ImportRefused(VerdictError):
    """A gate forbids the package; `gates` says which."""

    def __init__(self, gates: "list[Gate]", blocking: "list[Gate]") -> None:
        self.gates = gates
        reasons = "; ".join(f"{gate.gate} {gate.verdict}: {gate.sentence}" for gate in blocking)
        named = " --override-gate ".join(sorted({gate.gate for gate in blocking}))
        super().__init__(
            f"no package was written. {reasons} Mend the model or the goal, or overrule with --override-gate {named} --reason '...'"
        )


def import_model(
    source: Path, data: Path, wish: Wish, output: Path, *, project_dir: Path | None = None, overrides: Sequence[Override] = ()
) -> Imported:
    """Import a model.

    Args:
        source: MLflow model directory, or a .skops, .onnx, .tflite or .keras file.
        data: CSV or Parquet file with the model's columns and the label.
        wish: What else the user says.
        output: Package folder; must not exist.
        project_dir: Project folder whose goal, gates and column meanings are taken.
        overrides: Gates that a person overrules, with reasons.

    Raises:
        InputError: A pickle, or model and data do not fit each other.
        ArtifactError: The model file is damaged.
        ImportRefused: A gate forbids it.
    """
    from trainer.gates import check_overrides, judge_rows, overrule
    from trainer.judging import judge
    from trainer.packaging import cards, provenance, write
    from trainer.sources import read_file

    check_overrides(overrides)
    if output.exists():
        raise ConfigError(f"{output} exists already; name a folder that does not exist")
    found = find_model(source)
    job = {"kind": found.kind, "path": str(found.path.resolve())}
    description = msgspec.convert(in_child("trainer.importers.runtimes:describe", job, found.path), Description)
    table = read_file(data)
    project = project_for(found, description, table, data, wish, project_dir)
    classes = _classes(project, description, table, wish)
    rows = _halves(new_rows(project, table, classes), project)
    few = rows.x[:FEW_ROWS]
    signature, outputs = _signature(found, description, project, few, wish, classes)
    if project.goal.task == "classification" and signature.classes != classes:
        rows = _halves(new_rows(project, table, signature.classes), project)
    predict = _checked_predict(found, signature, few, outputs)
    steps = _identity(rows)
    fitted = Fitted(
        name=f"imported {found.kind}",
        family=description.family,
        margin_kind=_MARGINS.get(signature.meaning, "log-odds" if description.family != "forest" else "mean leaf probability"),
        model=f"model.{found.kind}",
        content=found.content,
        predict=predict,
        parameters={"origin": found.origin, "source": source.name, "output": signature.output, "meaning": signature.meaning},
        versions={**description.versions, **({"writer": found.foreign_version} if found.foreign_version else {})},
    )

    def cleaned(split: str) -> NDArray[np.float32]:
        return rows.of(split).x

    judged = judge(project, rows, fitted, steps, None, cleaned, baseline=False)
    gates, used, blocking = overrule([*judge_rows(project, rows), *judged.gates], overrides, project.gates.allow_inconclusive)
    if blocking:
        raise ImportRefused(gates, blocking)
    note = "imported: the model's own training rows are unknown; half of the data sample stands for them"
    made_of = {**provenance(project, rows, fitted), "note": note}
    evaluation = {"metric": project.goal.metric, "validation": judged.evaluation, "test": None, "test_note": note}
    card_md, card_html = cards(project, rows, fitted.name, evaluation, gates, used, made_of)
    package = write(
        output,
        project,
        rows,
        fitted,
        steps,
        answers_validation=judged.answers,
        gates=gates,
        overrides=used,
        evaluation=evaluation,
        provenance=made_of,
        card_md=card_md,
        card_html=card_html,
        threshold=judged.decision.get("threshold"),
        calibrator=judged.decision.get("calibrator"),
        signature=plain(signature),
    )
    return Imported(package, description, signature, gates, judged.evaluation["metrics"][project.goal.metric])


def _classes(project: Project, description: Description, table: "pandas.DataFrame", wish: Wish) -> list[str]:
    """The classes in the model's order as far as they are known before it has run: said, its own, or the data's."""
    if project.goal.task != "classification":
        return []
    if wish.classes:
        return list(wish.classes)
    if description.classes is not None:
        return description.classes
    found = sorted({text for text in plain_texts(table[project.data.label]).tolist() if text is not None})
    return sorted(found, key=int) if all(text.isdecimal() for text in found) else found


def _signature(
    found: Found, description: Description, project: Project, few: NDArray[np.float32], wish: Wish, classes: list[str]
) -> tuple[Signature, dict[str, NDArray[Any]]]:
    """Run a few rows through every output in a child, choose the one that answers; the signature, and what the child answered."""
    columns = [column.name for column in project.inputs]
    if description.features is not None and description.features != few[0].size:
        raise InputError(f"the model takes {description.features} numbers a row, the data have {few[0].size}; give its columns only")
    if len(description.inputs) == 1:
        row_sides(description.inputs[0], few[0].size)  # a misfit of rows is the data's fault; in the child it would be the file's
    bare = Signature(
        kind=found.kind,
        inputs=description.inputs,
        columns=columns,
        categories=[column.categories for column in project.inputs],
        table=description.columns is not None,
    )
    outputs = run_in_child(found.path.resolve(), bare, few)
    chosen = choose_output(description, outputs, task_of(project), few[0].size)
    if project.goal.task == "classification" and chosen.columns != len(classes):
        if wish.classes or description.classes is not None or not all(text.isdecimal() for text in classes):
            raise InputError(
                f"the model answers {chosen.columns} classes, {len(classes)} are known ({', '.join(classes[:8])}); "
                "name all of them in the model's order with --classes"
            )
        # Labels that are numbers are the places of the model's outputs; the sample just lacks some.
        classes = [str(place) for place in range(chosen.columns)]
    signature = msgspec.structs.replace(bare, output=chosen.output, meaning=chosen.meaning, sign=chosen.sign, classes=classes)
    return signature, outputs


def _checked_predict(found: Found, signature: Signature, few: NDArray[np.float32], outputs: dict[str, NDArray[Any]]) -> Predict:
    """The model as a function; what runs in this process must answer as it did in the child."""
    predict = foreign_predict(found.path.resolve(), signature)
    if found.kind not in IN_CHILD:
        child = meant(outputs[signature.output], signature, few)
        if not np.allclose(predict(few), child, rtol=1e-5, atol=1e-6):
            raise InputError(f"{found.path.name} answers differently each time it is opened; export it without random layers")
    return predict


def _identity(rows: DataSet) -> Any:
    from edgefleet.steps import Steps

    return Steps.identity(rows.x.shape[1:])


def _halves(rows: DataSet, project: Project) -> DataSet:
    """Half of the rows as training rows; groups and equal rows stand on one side, and each class on both where it can."""
    from trainer.gates.leakage import row_hashes

    if len(rows) < LEAST_ROWS:
        raise InputError(f"the data sample has {len(rows)} usable rows, at least {LEAST_ROWS} are needed")
    rng = np.random.default_rng(project.search.seed)
    grouped = rows.group is not None and len(np.unique(rows.group)) > 1
    kept_together = rows.group if grouped and rows.group is not None else row_hashes(rows.x)
    first, member = np.unique(kept_together, return_index=True, return_inverse=True)[1:]
    strata = rows.label[first] if project.goal.task == "classification" else np.zeros(len(first), np.int64)
    chosen = np.zeros(len(first), np.bool_)
    for one in np.unique(strata):
        chosen[rng.permutation(np.flatnonzero(strata == one))[::2]] = True
    training = chosen[member]
    return replace(rows, split=np.where(training, "train", "validation")).with_digest()
