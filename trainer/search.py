"""The search for a candidate's settings: trials by optuna, kept in a database, resumed after any death, shared by several workers.

A search asks and tells: under the study's lock a worker first gives up the trials of dead workers, then takes the lowest free order number,
then asks a fresh sampler seeded by (seed, order). A resumed sampler would begin its random stream again and repeat its first trials; a
fresh one continues exactly where the killed search would have been. Order 0 is the candidate's defaults: a search is never worse than
those.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ConfigError, EdgefleetError
from trainer.candidates import Predict, Problem, defaults, fit, refuse, settings_of, suggest
from trainer.candidates.backends import parallel
from trainer.search_storage import Storage, open_storage
from trainer.settings import Search

POLL_S: Final = 0.2  # while another worker finishes the last trial
STARTUP_TRIALS: Final = 5  # before the median may prune
WARMUP_STEPS: Final = 3
MAX_REASON: Final = 500
Training = tuple[NDArray[np.float32], NDArray[Any], NDArray[np.float64] | None]
Validation = tuple[NDArray[np.float32], NDArray[Any]]


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        candidate: Candidate name.
        parameters: The best trial's settings, complete, for `fit`.
        value: Its metric on the validation rows.
        trials: Every trial in its order: {number, state, value, seconds, parameters, size_bytes, latency_us, pareto, reason}; state is
            `complete`, `pruned` or `failed`.
        lost: Trials that died with their worker and were done again.
    """

    candidate: str
    parameters: dict[str, Any]
    value: float
    trials: list[dict[str, Any]]
    lost: int = 0

    @property
    def front(self) -> list[dict[str, Any]]:
        """Complete trials than which no other is at least as good in metric, size and latency and better in one."""
        return [trial for trial in self.trials if trial["pareto"]]

    def to_json(self) -> bytes:
        """The result as JSON."""
        return msgspec.json.encode(self)


def search(
    name: str,
    train: Training,
    validation: Validation,
    problem: Problem,
    settings: Search,
    score: Callable[[Predict], float],
    greater_is_better: bool,
    storage: str,
    study: str,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> SearchResult:
    """Search the settings of one candidate, alone or together with other workers that name the same storage and study.

    Args:
        name: Candidate.
        train: Cleaned rows [n, ...], labels [n], weights [n] or None.
        validation: Cleaned rows and labels that a fit may stop by.
        problem: What shall be learnt.
        settings: Budget, seed, objective, pruning, backend; its `parameters` for this candidate are fixed and not searched.
        score: A fitted model, as a function of cleaned rows, to the metric on the validation rows.
        greater_is_better: Whether more of the metric is better.
        storage: SQLAlchemy URL of a SQLite file or a PostgreSQL database, or `env:NAME`.
        study: Name of the search in the storage: equal names must mean equal rows and settings.
        progress: Is told each trial that this worker finished.

    Returns:
        The result of all workers; when another one still works at the last trial, this waits for it.

    Raises:
        ConfigError: A setting is wrong, or every trial failed.
        TransportError: The database does not answer.
    """
    refuse(name, train[0], train[1], problem)
    settings_of(name, problem, settings.parameters.get(name))
    with open_storage(storage, study) as opened, parallel(settings.backend, settings.jobs):
        worker = _Worker(name, train, validation, problem, settings, score, greater_is_better, opened, study)
        while (trial := worker.take()) is not None:
            done = worker.run(trial)
            if progress is not None:
                progress(done)
        return worker.result()


@dataclass
class _Worker:
    """One worker of a search."""

    name: str
    train: Training
    validation: Validation
    problem: Problem
    settings: Search
    score: Callable[[Predict], float]
    greater_is_better: bool
    storage: Storage
    study_name: str
    _study: Any = field(init=False)
    _spent_s: float | None = None
    _began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        best: Any = "maximize" if self.greater_is_better else "minimize"
        pruner = optuna.pruners.MedianPruner(STARTUP_TRIALS, WARMUP_STEPS) if self._prunes else optuna.pruners.NopPruner()
        self._study = optuna.create_study(
            storage=self.storage.optuna,
            study_name=self.study_name,
            directions=[best, "minimize", "minimize"] if self._costs else [best],
            pruner=pruner,
            load_if_exists=True,
        )

    @property
    def _costs(self) -> bool:
        return self.settings.objective == "metric+cost"

    @property
    def _prunes(self) -> bool:
        # The median of three objectives says nothing: a small model may be worse half-way and still stand on the front.
        return self.settings.prune and not self._costs

    def take(self) -> Any:
        """The next trial for this worker, or None when all are done or the time is up."""
        while True:
            with self.storage.locks.exclusive():
                finished, running = self._look()
                order = next(number for number in range(len(finished) + len(running) + 1) if number not in finished | running)
                if self._may_begin(order):
                    return self._ask(order)
            if not running:
                return None
            time.sleep(POLL_S)

    def _look(self) -> tuple[set[int], set[int]]:
        """(orders finished, orders running); gives up the trials of dead workers."""
        import optuna

        finished: set[int] = set()
        running: set[int] = set()
        seconds = 0.0
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state == optuna.trial.TrialState.RUNNING:
                # Killed between asking and signing: nobody else can be there, for both happen under the lock.
                if "worker" in trial.user_attrs and self.storage.locks.is_alive(trial.user_attrs["worker"]):
                    running.add(trial.user_attrs["order"])
                else:
                    self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
            elif not _is_lost(trial):
                finished.add(trial.user_attrs["order"])
                seconds += trial.user_attrs["seconds"]
        if self._spent_s is None:
            self._spent_s = 0.0 if running else seconds  # a resumed search has used up part of its time
        return finished, running

    def _may_begin(self, order: int) -> bool:
        limit = self.settings.trials or (1 if self.settings.seconds is None else None)
        if limit is not None and order >= limit:
            return False
        if order == 0 or self.settings.seconds is None:
            return True
        return (self._spent_s or 0.0) + time.monotonic() - self._began < self.settings.seconds

    def _ask(self, order: int) -> Any:
        self._study.sampler = _sampler(self.settings.seed, order, defaults(self.name, self.problem))
        trial = self._study.ask()
        trial.set_user_attr("order", order)
        trial.set_user_attr("worker", self.storage.locks.worker)
        chosen = suggest(self.name, trial, self.problem) | self.settings.parameters.get(self.name, {})
        trial.set_user_attr("parameters", chosen)
        return trial

    def run(self, trial: Any) -> dict[str, Any]:
        """Fit and judge one trial; a failed one is recorded and ends nothing."""
        import optuna

        state, begin, values = optuna.trial.TrialState, time.perf_counter(), None
        try:
            values = self._values(trial)
            outcome = state.COMPLETE
        except optuna.TrialPruned:
            outcome = state.PRUNED
        except Exception as err:  # a library's failure on odd settings is a trial's result, whatever its kind
            outcome = state.FAIL
            text = str(err) if isinstance(err, EdgefleetError) else f"{type(err).__name__}: {err}"
            trial.set_user_attr("reason", " ".join(text.split())[:MAX_REASON])
        trial.set_user_attr("seconds", round(time.perf_counter() - begin, 3))
        return _plain(self._study.tell(trial, values, state=outcome))

    def _values(self, trial: Any) -> list[float]:
        import optuna

        sign = -1 if self.greater_is_better else 1

        def go_on(step: int, loss: float) -> bool:
            trial.report(sign * loss, step)
            if trial.should_prune():
                raise optuna.TrialPruned
            return True

        z, label, weight = self.train
        fitted = fit(
            self.name,
            z,
            label,
            self.problem,
            parameters=trial.user_attrs["parameters"],
            weight=weight,
            validation=self.validation,
            progress=go_on if self._prunes else None,
        )
        value = float(self.score(fitted.predict))
        if not np.isfinite(value):
            raise ConfigError(f"the metric of its answers is {value}")
        trial.set_user_attr("size_bytes", fitted.size_bytes)
        trial.set_user_attr("latency_us", fitted.latency_us)
        return [value, float(fitted.size_bytes), fitted.latency_us] if self._costs else [value]

    def result(self) -> SearchResult:
        """The result over the trials of all workers."""
        kept = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.is_finished()]
        trials = sorted((_plain(trial) for trial in kept if not _is_lost(trial)), key=lambda trial: int(trial["number"]))
        complete = [trial for trial in trials if trial["state"] == "complete"]
        if not complete:
            first = next((trial["reason"] for trial in trials if trial["reason"]), "it was stopped")
            raise ConfigError(f"search of {self.name!r}: all {len(trials)} trials failed, the first because: {first}")
        sign = -1 if self.greater_is_better else 1
        for trial in complete:
            trial["pareto"] = not any(_dominates(other, trial, sign) for other in complete)
        best = min(complete, key=lambda trial: (sign * trial["value"], trial["size_bytes"], trial["number"]))
        return SearchResult(self.name, best["parameters"], best["value"], trials, lost=len(kept) - len(trials))


def _is_lost(trial: Any) -> bool:
    """A trial that died with its worker: failed without a reason."""
    return trial.state.name == "FAIL" and "reason" not in trial.user_attrs


def _dominates(one: dict[str, Any], other: dict[str, Any], sign: int) -> bool:
    pairs = [(sign * one["value"], sign * other["value"])] + [(one[cost], other[cost]) for cost in ("size_bytes", "latency_us")]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _plain(trial: Any) -> dict[str, Any]:
    noted, complete = trial.user_attrs, trial.state.name == "COMPLETE"
    return {
        "number": noted["order"],
        "state": {"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "failed"),
        "value": trial.values[0] if complete else None,
        "seconds": noted["seconds"],
        "parameters": noted["parameters"],
        "size_bytes": noted.get("size_bytes"),
        "latency_us": noted.get("latency_us"),
        "pareto": False,
        "reason": noted.get("reason", ""),
    }


def _sampler(seed: int, order: int, first: dict[str, Any]) -> Any:
    import optuna

    stream = int(np.random.SeedSequence([seed, order]).generate_state(1)[0])
    if order > 0:
        return optuna.samplers.TPESampler(seed=stream)

    class Defaults(optuna.samplers.RandomSampler):
        """Answers with the candidate's defaults, where a search could have drawn them."""

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            """The default of one setting."""
            value = first.get(param_name)
            drawn = super().sample_independent(study, trial, param_name, param_distribution)
            return value if param_distribution._contains(param_distribution.to_internal_repr(value)) else drawn

    return Defaults(seed=stream)
