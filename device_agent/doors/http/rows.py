"""Rows of one request to the models and their answers back, column by column, whatever the protocol was.

A single row takes the scorer's short way. Many go in chunks, so that other requests get their turn between, and so that the time limit
can end them: rows scored until then stay counted as scored, the others are shed.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from device_agent.doors.http.counters import SHED, Tally
from device_agent.doors.http.exchange import RETRY, Refused
from device_agent.doors.oip.columns import Rows
from device_agent.score import BatchScores, Score, outlier_if_known
from device_agent.scorer import Scorer
from edgefleet.errors import ArtifactError, ConfigError, EdgefleetError, InputError, ModelSwapped, RowRejected

CHUNK_ROWS: Final = 1024
MAX_SWAPS: Final = 8
Datatype = Literal["BOOL", "BYTES", "FP32", "FP64"]


class Models(Protocol):
    """Who answers: `Answering`, or the agent, which also reports."""

    @property
    def in_service(self) -> Scorer | None:
        """The model whose answers count; as `Answering.in_service`."""
        ...

    def score(self, row: Any, explain: bool = False, made_for: Scorer | None = None) -> Score:
        """Answer one row; as `Answering.score`."""
        ...

    def score_batch(self, rows: Any, made_for: Scorer | None = None) -> BatchScores:
        """Answer many rows; as `Answering.score_batch`."""
        ...


@dataclass(frozen=True, slots=True)
class Output:
    """One column of answers: name, data type of the protocol, and shape of a row's part (empty = one value without a dimension)."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...] = ()


ERROR: Final = Output("error", "BYTES")


_outputs: "WeakKeyDictionary[Scorer, tuple[Output, ...]]" = WeakKeyDictionary()


def outputs_of(scorer: Scorer) -> tuple[Output, ...]:
    """What a model's answers consist of; `error` comes with them when a row was refused."""
    found = _outputs.get(scorer)
    if found is None:
        found = _outputs[scorer] = _outputs_of(scorer)
    return found


def _outputs_of(scorer: Scorer) -> tuple[Output, ...]:
    decision, note = scorer.decision, scorer.bundle.manifest.outlier
    found = [Output("label", "BYTES")] if decision.labels else []
    found += [Output("score", "FP32"), Output("margin", "FP32")]
    if decision.classes:
        found.append(Output("probabilities", "FP32", (len(decision.classes),)))
    if note is not None and scorer.variant.runtime in note.files:
        found.append(Output("outlier", "BOOL"))
    return tuple(found)


class Answers(Protocol):
    """Answers of one request."""

    @property
    def rejected(self) -> Mapping[int, RowRejected]:
        """Refusals by row number."""
        ...

    def __len__(self) -> int: ...

    def column(self, name: str) -> list[Any] | NDArray[Any]:
        """[n] or [n, width]; "" for labels and NaN for numbers of refused rows."""
        ...


class OneAnswer:
    """The answer to a single row, read lazily."""

    rejected: Mapping[int, RowRejected] = {}

    def __init__(self, score: Score) -> None:
        self._score = score

    def __len__(self) -> int:
        return 1

    def column(self, name: str) -> list[Any] | NDArray[Any]:
        """As `Answers.column`."""
        score = self._score
        if name == "label":
            return [score.label or ""]
        if name == "score":
            return [score.score]
        if name == "margin":
            return [score.margin]
        if name == "probabilities":
            found = score.probabilities
            return [[]] if found is None else found[np.newaxis]
        if name == "outlier":
            return [bool(outlier_if_known(score))]
        return [""]


class ManyAnswers:
    """The answers to many rows, in the chunks they were scored in."""

    def __init__(self, chunks: list[BatchScores]) -> None:
        self._chunks = chunks
        self.rejected: dict[int, RowRejected] = {}
        self._rows = 0
        for chunk in chunks:
            self.rejected.update({self._rows + i: err for i, err in chunk.rejected.items()})
            self._rows += len(chunk)

    def __len__(self) -> int:
        return self._rows

    def column(self, name: str) -> list[Any] | NDArray[Any]:
        """As `Answers.column`."""
        if name == "error":
            return [str(self.rejected[i]) if i in self.rejected else "" for i in range(self._rows)]
        if name == "label":
            return [label or "" for chunk in self._chunks for label in chunk.label.tolist()]
        if name == "outlier":
            return np.concatenate([_outliers(chunk) for chunk in self._chunks])
        return np.concatenate([getattr(chunk, name) for chunk in self._chunks])


def answer_rows(models: Models, rows: Rows, tally: Tally, work_s: float, made_for: Scorer) -> Answers:
    """Score the rows of a request, all with one model.

    Args:
        models: Who answers.
        rows: A list of rows as `Scorer.score` takes them, or an array [n, F] or [n, T, F]; at least one.
        tally: Counts them.
        work_s: Seconds that it may take.
        made_for: The model whose order of inputs the rows are in.

    Raises:
        Refused: Every row was refused (400, with the first one's text), no model is there or the time is up (503), the model failed (500).
        ModelSwapped: Another model answers now.
    """
    n = tally.offered = len(rows)
    tally.scored = 0
    tally.rejected.clear()  # of an attempt that a swap ended
    try:
        if n == 1:
            score = models.score(rows[0], made_for=made_for)
            tally.scored = 1
            return OneAnswer(score)
        answers = ManyAnswers(_chunks(models, rows, tally, work_s, made_for))
    except RowRejected as err:
        raise Refused(400, str(err), err.reason) from err
    except InputError as err:
        raise Refused(400, str(err), "shape") from err
    except ConfigError as err:
        raise Refused(503, str(err), "no-model", RETRY) from err
    except ArtifactError as err:
        raise Refused(500, str(err), "runtime") from err
    if len(answers.rejected) == n:
        number, first = next(iter(answers.rejected.items()))
        raise Refused(400, str(first) if n == 1 else f"all {n} rows were refused; row {number}: {first}", first.reason)
    return answers


def retry_swapped(attempt: Callable[[], Any]) -> Any:
    """Call `attempt` again while models are swapped under it; what it does before scoring may depend on the running model.

    Raises:
        Refused: Models are swapped faster than rows can be put in order.
    """
    for _ in range(MAX_SWAPS):
        try:
            return attempt()
        except ModelSwapped:
            continue
    raise Refused(503, f"the model was swapped {MAX_SWAPS} times meanwhile; try again", SHED, RETRY)


def running_model(models: Models) -> Scorer:
    """The model that answers.

    Raises:
        Refused: There is none yet, or it cannot be opened.
    """
    try:
        running = models.in_service
    except EdgefleetError as err:
        raise Refused(503, f"this version cannot be opened: {err}", "no-model") from err
    if running is None:
        raise Refused(503, "no model is installed yet; start a rollout that selects this device", "no-model", RETRY)
    return running


def _chunks(models: Models, rows: Rows, tally: Tally, work_s: float, made_for: Scorer) -> list[BatchScores]:
    deadline, done = time.monotonic() + work_s, list[BatchScores]()
    for start in range(0, len(rows), CHUNK_ROWS):
        if start and time.monotonic() > deadline:
            raise Refused(
                503, f"{start} of {len(rows)} rows took the {work_s:g} s that a request may take; send fewer at once", SHED, RETRY
            )
        chunk = models.score_batch(rows[start : start + CHUNK_ROWS], made_for)
        tally.scored += len(chunk) - len(chunk.rejected)
        for err in chunk.rejected.values():
            tally.reject(err.reason)
        done.append(chunk)
    return done


def _outliers(chunk: BatchScores) -> NDArray[np.bool_]:
    return np.zeros(len(chunk), bool) if chunk.outlier is None else chunk.outlier
