"""Two steps of a training: the search for a candidate's settings, and its fit."""

import time
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.digests import canonical_json, sha256_hex
from edgefleet.errors import InputError
from edgefleet.steps import Steps
from trainer.candidates import CANDIDATES
from trainer.candidates.fitted import Fitted, Predict, Problem
from trainer.dataset import DataSet
from trainer.metrics import METRICS
from trainer.project import Project

if TYPE_CHECKING:
    from trainer.stages import Stages

_BAR: Final = 24  # characters of a progress bar
# What of a fitted model is plain values.
KEPT: Final = ("name", "family", "margin_kind", "model", "parameters", "versions", "curve", "size_bytes", "latency_us")
# Where trials are kept and how many run at a time does not change what they find.
NO_MATTER: Final = ("storage", "backend", "jobs", "candidates")


def searches(project: Project, name: str) -> bool:
    """Whether there is a budget for a search, and anything to search for."""
    search = project.search
    return (search.trials > 0 or search.seconds is not None) and not CANDIDATES[name].baseline


def search_step(stages: "Stages", rows: DataSet, name: str, steps: Steps, problem: Problem) -> dict[str, Any]:
    """The best parameters and every trial, plain values; an interrupted search goes on where it stood.

    A trial's value is the metric of its decisions, with calibrator and threshold, as it will be judged.
    """
    from trainer import judging
    from trainer import search as searching

    settings, tables = stages.project.search, stages.project.tables()
    inputs = depends(rows, steps) | {"goal": tables["goal"], "name": name, "calibrate": stages.project.gates.calibrate}
    inputs["search"] = {k: v for k, v in tables["search"].items() if k not in NO_MATTER}
    inputs |= _learnt(stages, problem)
    study = f"{stages.project.name}-{name}-{sha256_hex(canonical_json(inputs))[:16]}"
    storage = settings.storage or f"sqlite:///{stages.cache.folder / 'search.db'}"

    def find() -> dict[str, bytes]:
        training, validation = rows.of("train"), rows.of("validation")
        z, z_validation = stages.z(rows, steps, "train"), stages.z(rows, steps, "validation")
        metric = METRICS[stages.project.goal.metric]

        def score(predict: Predict) -> float:
            predictions = predict(z_validation)
            decision = judging.decide(stages.project, rows, predict, predictions, partial(stages.z, rows, steps), resamples=0)
            answers = stages.answers(rows, predictions, decision)
            return metric(validation.label, answers, rows.classes, stages.project.goal)

        result = searching.search(
            name,
            (z, training.label, stages.weights(training)),
            (z_validation, validation.label),
            problem,
            settings,
            score,
            metric.greater_is_better,
            storage,
            study,
            progress=partial(_trial_told, stages, name, time.monotonic()),
        )
        return {"search.json": canonical_json(msgspec.to_builtins(result))}

    files = stages.step(f"search {name}", find, inputs, [searching.search, judging.decide, *code_of(name)])
    return dict(msgspec.json.decode(files["search.json"]))


def code_of(name: str) -> list[str]:
    """Whose code a fit runs, as the step cache names it: a change of networks does not fit forests again."""
    return ["trainer.candidates.networks"] if CANDIDATES[name].library == "keras" else ["trainer.candidates.scikit"]


def _trial_told(stages: "Stages", name: str, begin: float, trial: dict[str, Any]) -> None:
    stages.run.event("trial", candidate=name, **trial)
    search, spent = stages.project.search, time.monotonic() - begin
    share = (trial["number"] + 1) / search.trials if search.trials else spent / (search.seconds or 1)
    bar = "#" * min(_BAR, round(_BAR * share))
    budget = f"trial {trial['number'] + 1} of {search.trials}" if search.trials else f"{spent:.0f} of {search.seconds:.0f} s"
    stages.said(f"search {name} [{bar:-<{_BAR}}] {budget}, {spent:.0f} s")


def fit_step(stages: "Stages", rows: DataSet, name: str, steps: Steps, problem: Problem, parameters: dict[str, Any] | None) -> Fitted:
    """The fitted candidate; its model is opened from its file when it is first asked."""
    from trainer import candidates
    from trainer.candidates.backends import parallel

    def fit_it() -> dict[str, bytes]:
        training, validation = rows.of("train"), rows.of("validation")
        if absent := sorted(set(range(problem.classes)) - set(training.label.tolist())):
            name_of = rows.classes[absent[0]]
            raise InputError(f"class {name_of!r} has no training rows; add some or remove its rows from the other splits")
        with parallel(stages.project.search.backend, stages.project.search.jobs):
            fitted = candidates.fit(
                name,
                stages.z(rows, steps, "train"),
                training.label,
                problem,
                parameters=parameters,
                weight=stages.weights(training),
                validation=(stages.z(rows, steps, "validation"), validation.label),
            )
        notes = {k: getattr(fitted, k) for k in KEPT}
        notes["importance"] = None if fitted.importance is None else fitted.importance.tolist()
        return {fitted.model: fitted.content, "fitted.json": canonical_json(notes)}

    inputs = depends(rows, steps) | {"parameters": parameters, "name": name}
    inputs |= _learnt(stages, problem)
    files = stages.step(f"fit {name}", fit_it, inputs, code_of(name))
    notes = msgspec.json.decode(files["fitted.json"])
    importance = notes.pop("importance")
    content = files[notes["model"]]

    @cache
    def opened() -> Predict:
        return candidates.open_model(content, notes["model"], problem)

    def predict(z: NDArray[np.float32]) -> NDArray[np.float64]:
        return opened()(z)

    for entry in notes["curve"]:
        stages.run.event("epoch", candidate=name, **entry)
    return Fitted(**notes, content=content, predict=predict, importance=None if importance is None else np.array(importance))


def _learnt(stages: "Stages", problem: Problem) -> dict[str, Any]:
    """What of the problem and the weights changes a fit, as part of a step's key."""
    return {"problem": {k: v for k, v in problem.__dict__.items() if k != "jobs"}, "weight": stages.project.data.class_weight}


def depends(rows: DataSet, steps: Steps, fitted: Fitted | None = None) -> dict[str, Any]:
    """The rows, cleaning and model that a step depends on, as part of its key."""
    model = {} if fitted is None else {"model": sha256_hex(fitted.content)}
    return {"rows": rows.digest, "steps": sha256_hex(steps.to_json()), **model}
