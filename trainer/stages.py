"""The steps of a training, each through the step cache: what it depends on is its key, what it makes is a few files.

A step's function imports heavy libraries itself, so that a repeat that finds everything cached imports none of them.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.caching.cache import StepCache
from edgefleet.digests import canonical_json, sha256_hex
from edgefleet.errors import InputError
from edgefleet.manifest import Override
from edgefleet.package import ModelPackage, write_files
from edgefleet.steps import Steps
from trainer.answers import Answers
from trainer.candidates import CANDIDATES
from trainer.candidates.fitted import Fitted, Problem
from trainer.dataset import DataSet
from trainer.fitting import depends, fit_step, search_step, searches
from trainer.gates import Gate, overrule
from trainer.project import Project
from trainer.runs import Run
from trainer.validated import Validated, answers_bytes, read_answers

ROW_TABLES: Final = ("data", "schema")


@dataclass
class Stages:
    """One training's steps.

    Attributes:
        why: Step -> why it ran, or that it was cached.
    """

    project: Project
    run: Run
    cache: StepCache
    champion: ModelPackage | None
    said: Callable[[str], None]
    why: dict[str, str] = field(default_factory=dict)
    _compiled: dict[str, Steps] = field(default_factory=dict)
    _cleaned: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    _champion_answers: Answers | None = None

    def read(self) -> DataSet:
        """The rows, checked against the schema."""
        from trainer import load, sources

        table = None
        identity = sources.source_fingerprint(self.project)
        if identity is None:
            table = sources.read_table(self.project)
            identity = sources.content_digest(table)
        goal = self.project.goal
        inputs: dict[str, Any] = {name: self.project.tables()[name] for name in ROW_TABLES}
        inputs |= {"source": identity, "task": goal.task, "positive": goal.positive, "cap": goal.cap, "costs": goal.costs}
        inputs["fairness"] = self.project.gates.fairness  # its columns are slices too
        inputs["window"] = self.project.tables()["cleaning"]["window"]
        files = self.step("read", lambda: {"rows.npz": load.load_rows(self.project, table).to_bytes()}, inputs, [load.load_rows])
        return DataSet.from_bytes(files["rows.npz"])

    def judge_rows(self, rows: DataSet) -> list[Gate]:
        """G1 to G3, which no candidate can change."""
        from trainer import gates

        tables = self.project.tables()
        inputs: dict[str, Any] = {"rows": rows.digest, **{name: tables[name] for name in ("gates", "schema", "goal")}}
        inputs["splits"] = tables["data"]["splits"]  # splits by time are asked for their order
        files = self.step("judge rows", lambda: {"gates.json": _json(gates.judge_rows(self.project, rows))}, inputs, [gates.judge_rows])
        return msgspec.json.decode(files["gates.json"], type=list[Gate])

    def compare_with_champion(self, rows: DataSet) -> None:
        """The champion's own answers to the validation rows, for G7.

        Raises:
            InputError: It has other inputs or classes, so that the two cannot be compared on the same rows.
        """
        if (old := self.champion) is None:
            return
        from trainer import opened

        if difference := opened.other_inputs(self.project.inputs, old.inputs()):
            raise InputError(f"champion {old.digest[:12]} has other inputs than the project; train without --champion ({difference})")
        classes = rows.classes if self.project.task == "classification" else []  # of a detector a package names none
        if old.index.classes != classes or old.index.task != self.project.task:
            raise InputError(f"champion {old.digest[:12]} answers {old.index.classes or old.index.task}, the rows hold {rows.classes}")

        def answer() -> dict[str, bytes]:
            return {"answers.npz": answers_bytes(opened.open_predict(old)(rows.of("validation").x))}

        files = self.step("champion", answer, {"rows": rows.digest, "champion": old.digest}, [opened.open_predict])
        self._champion_answers = opened.speaking_of(read_answers(files["answers.npz"]), rows.classes, self._positive(rows))

    def validate(
        self, rows: DataSet, name: str, row_gates: list[Gate], overrides: Sequence[Override], *, baseline: bool = False
    ) -> Validated:
        """Clean, search, fit and judge one candidate."""
        begin = time.perf_counter()
        steps = self._clean(rows, trees=CANDIDATES[name].trees)
        problem = self._problem(rows, steps)
        searched = {} if baseline or not searches(self.project, name) else search_step(self, rows, name, steps, problem)
        parameters = searched.get("parameters") or self.project.search.parameters.get(name)
        fitted = fit_step(self, rows, name, steps, problem, parameters)
        judged = self._judge(rows, fitted, steps, baseline=baseline)
        gates, used, blocking = overrule(row_gates + judged["gates"], overrides, self.project.gates.allow_inconclusive)
        return Validated(
            name=name,
            steps=steps,
            fitted=fitted,
            answers=judged["answers"],
            metric=judged["evaluation"]["metrics"][self.project.goal.metric],
            evaluation=judged["evaluation"],
            gates=gates,
            overrides=used,
            blocking=blocking,
            trials=searched.get("trials", []),
            decision=judged["decision"],
            seconds=round(time.perf_counter() - begin, 3),
        )

    def test(self, rows: DataSet, winner: Validated) -> dict[str, Any]:
        """The winner's evaluation on the test rows, looked at once, after the choice."""
        from trainer import evaluate

        def measure() -> dict[str, bytes]:
            test_rows = rows.of("test")
            predictions = winner.fitted.predict(self.z(rows, winner.steps, "test"))
            answers = self.answers(rows, predictions, winner.decision)
            return {"evaluation.json": canonical_json(evaluate.evaluate(self.project, test_rows, answers))}

        inputs: dict[str, Any] = {
            "rows": rows.digest,
            "model": sha256_hex(winner.fitted.content),
            "steps": sha256_hex(winner.steps.to_json()),
        }
        inputs |= {"decision": winner.decision, **self._measured_by()}
        files = self.step("test", measure, inputs, [evaluate.evaluate])
        return dict(msgspec.json.decode(files["evaluation.json"]))

    def package(self, rows: DataSet, candidate: Validated, test: dict[str, Any] | None) -> ModelPackage:
        """The model package of a candidate that its gates allow."""
        from trainer import packaging

        digest = None if self.champion is None else self.champion.digest
        git = self.run.record.get("git")
        commit = None if git is None else f"{git['commit']}{'-dirty' if git['dirty'] else ''}"

        def make() -> dict[str, bytes]:
            z = partial(self.z, rows, candidate.steps)
            return packaging.package_files(self.project, rows, candidate, test=test, champion_digest=digest, git_commit=commit, cleaned=z)

        inputs: dict[str, Any] = {
            "rows": rows.digest,
            "model": sha256_hex(candidate.fitted.content),
            "steps": sha256_hex(candidate.steps.to_json()),
        }
        inputs |= {
            "project": self.project.tables(),
            "champion": digest,
            "git_commit": commit,
            "decision": candidate.decision,
            "test": sha256_hex(_json(test)),
        }
        inputs |= {"overrides": msgspec.to_builtins(candidate.overrides), "gates": sha256_hex(_json(candidate.gates))}
        files = self.step(f"package {candidate.name}", make, inputs, [packaging.package_files])
        return write_files(self.run.folder / candidate.name / "package", files)

    def finish(self, status: str, reason: str = "") -> None:
        """Write the run's record, its report, and the mirror where one is asked for."""
        from trainer import publishing

        self.run.record["steps"] = self.why
        self.cache.prune()
        self.cache.keep_code()
        publishing.publish(self.project, self.run, status, reason)

    def _clean(self, rows: DataSet, *, trees: bool) -> Steps:
        from trainer import cleaning

        name = "clean for trees" if trees else "clean"
        if name in self._compiled:  # asked once a training, so that its time and its reason are those of the one time it ran
            return self._compiled[name]

        def compile_them() -> dict[str, bytes]:
            training = rows.of("train").x
            return {
                "steps.json": cleaning.compile_steps(self.project.cleaning, self.project.inputs, training, monotone=not trees).to_json()
            }

        tables = self.project.tables()
        inputs: dict[str, Any] = {"rows": rows.digest, "cleaning": tables["cleaning"], "schema": tables["schema"], "monotone": not trees}
        files = self.step(name, compile_them, inputs, [cleaning.compile_steps])
        return self._compiled.setdefault(name, Steps.from_json(files["steps.json"]))

    def _problem(self, rows: DataSet, steps: Steps) -> Problem:
        # An image project without steps hands networks its image; everything else is as the steps leave it.
        image = steps.is_identity and len(self.project.shape) > 1 and rows.x.ndim == 2
        shape = tuple(self.project.shape) if image else tuple(steps.output_shape)
        search = self.project.search
        return Problem(task=self.project.task, classes=self._class_count(rows), shape=shape, seed=search.seed, jobs=search.jobs)

    def _positive(self, rows: DataSet) -> str:
        from trainer.judging import positive_index

        return rows.classes[positive_index(self.project, rows.classes)] if rows.classes else ""

    def _class_count(self, rows: DataSet) -> int:
        return len(rows.classes) if self.project.task == "classification" else 0

    def _judge(self, rows: DataSet, fitted: Fitted, steps: Steps, *, baseline: bool) -> dict[str, Any]:
        from trainer import judging

        champion = None if baseline else self._champion_answers

        def judge() -> dict[str, bytes]:
            judged = judging.judge(self.project, rows, fitted, steps, champion, partial(self.z, rows, steps), baseline=baseline)
            return {"judged.json": canonical_json(judged.plain()), "answers.npz": answers_bytes(judged.answers)}

        inputs = depends(rows, steps, fitted) | self._measured_by()
        inputs |= {"champion": None if champion is None or self.champion is None else self.champion.digest, "baseline": baseline}
        files = self.step(f"judge {fitted.name}", judge, inputs, [judging.judge])
        plain = msgspec.json.decode(files["judged.json"])
        gates = msgspec.convert(plain.pop("gates"), list[Gate])
        return {**plain, "gates": gates, "answers": read_answers(files["answers.npz"])}

    def _measured_by(self) -> dict[str, Any]:
        """What an evaluation and the gates read of the settings, as part of a step's key: goal, limits, inputs, seed of the resamples."""
        tables = self.project.tables()
        return {name: tables[name] for name in ("goal", "gates", "schema")} | {"seed": self.project.search.seed}

    def answers(self, rows: DataSet, predictions: NDArray[np.float64], decision: dict[str, Any]) -> Answers:
        """A model's predictions as answers."""
        from trainer.judging import to_answers

        return to_answers(self.project, rows.classes, predictions, decision)

    def weights(self, rows: DataSet) -> NDArray[np.float64] | None:
        """[n] weights of training rows: declared ones times the balance of classes, or None where all are 1."""
        if self.project.data.class_weight == "none" or self.project.task != "classification":
            return rows.weight
        counts = np.bincount(rows.label)
        balanced: NDArray[np.float64] = len(rows) / (np.count_nonzero(counts) * counts[rows.label])
        return balanced if rows.weight is None else balanced * rows.weight

    def z(self, rows: DataSet, steps: Steps, split: str) -> NDArray[np.float32]:
        """The cleaned rows of one split, computed once a training."""
        key = f"{sha256_hex(steps.to_json())} {split}"
        if key not in self._cleaned:
            self._cleaned[key] = steps.run(rows.of(split).x)
        return self._cleaned[key]

    def step(self, name: str, make: Callable[[], dict[str, bytes]], inputs: dict[str, Any], code: Sequence[Any]) -> dict[str, bytes]:
        """Run one step through the cache: `inputs` and what `code` reaches are its key."""
        self.said(name)
        with self.run.phase(name):
            result = self.cache.run(name, make, inputs=inputs, code=code)
        self.why[name] = result.why
        return result.files


def _json(value: Any) -> bytes:
    return canonical_json(msgspec.to_builtins(value))
