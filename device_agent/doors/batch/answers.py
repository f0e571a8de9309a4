"""Asks the scorer for a chunk of rows and keeps what it says in columns, one entry per row that came, in order."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from device_agent.batching import RUNTIME_FAILED
from device_agent.checks import RowChecks
from device_agent.doors.batch.rows import BadRow, Chunk, Tally
from device_agent.doors.batch.windows import Windows
from device_agent.score import BatchScores, outlier_if_known
from device_agent.scorer import Scorer
from edgefleet.errors import ArtifactError, RowRejected

OK: Final = "ok"
REJECTED: Final = "rejected"
WARMING_UP: Final = "warming_up"


@dataclass(frozen=True, slots=True)
class Told:
    """One explanation: a sentence, and the strongest inputs as plain values."""

    text: str
    top: list[dict[str, Any]]


@dataclass
class Answers:
    """Answers of one chunk, in columns of n entries.

    Attributes:
        first: Number of the first row, from 1.
        digest: Sha256 of the graph that answered.
        status: `ok`, `rejected` or `warming_up`.
        label: Answered class, None where there is none.
        score: [n] float32, NaN where there is none.
        margin: [n] likewise.
        probabilities: [n, classes] likewise.
        outlier: Whether a row is unlike the training rows; None where nothing can be said.
        refused: Refusal by place in the chunk.
        waiting: What a row that is warming up waits for, by place.
        told: Explanation by place.
        lines: Line of each row, or empty.
    """

    first: int
    digest: str
    status: list[str]
    label: list[str | None]
    score: NDArray[np.float32]
    margin: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    outlier: list[bool | None]
    refused: dict[int, RowRejected]
    waiting: dict[int, str] = field(default_factory=dict)
    told: dict[int, Told] = field(default_factory=dict)
    lines: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.status)

    @cached_property
    def tally(self) -> Tally:
        """Counts of this chunk."""
        rejected: dict[str, int] = {}
        for refusal in self.refused.values():
            rejected[refusal.reason] = rejected.get(refusal.reason, 0) + 1
        scored = len(self) - len(self.refused) - len(self.waiting)
        return Tally(len(self), scored, len(self.waiting), rejected, sum(flag is True for flag in self.outlier))

    @cached_property
    def bad(self) -> list[BadRow]:
        """The refused rows, in order."""
        return [BadRow(self.first + i, self.lines[i] if self.lines else None, err) for i, err in sorted(self.refused.items())]


class RowAnswerer:
    """Answers chunks of rows.

    Args:
        scorer: The model.
        top: How many inputs an explanation names; 0 asks for none.
        windows: Where single rows become windows; None for a model of single rows.
    """

    def __init__(self, scorer: Scorer, top: int = 0, windows: Windows | None = None) -> None:
        self._scorer, self._top, self.windows = scorer, top, windows
        manifest = scorer.bundle.manifest
        self._inputs, self._task = manifest.inputs, manifest.task
        no_missing = None if scorer.variant.takes_missing else scorer.variant.name
        self._checks = RowChecks(manifest.inputs, np.zeros((2, len(manifest.inputs)), np.float32), no_missing)

    def answer(self, chunk: Chunk) -> Answers:
        """Answer every row of a chunk."""
        waiting: dict[int, str] = {}
        refused: dict[int, RowRejected] = {}
        given: Any
        if self.windows is not None:
            given, places, refused, waiting = self._windows_of(chunk, self.windows)
        elif isinstance(chunk.rows, np.ndarray):
            given, places = chunk.rows, list(range(len(chunk.rows)))
        else:
            refused = {i: row for i, row in enumerate(chunk.rows) if isinstance(row, RowRejected)}
            places = [i for i in range(len(chunk.rows)) if i not in refused]
            given = chunk.rows if not refused else [chunk.rows[i] for i in places]
        answers = self._empty(chunk, refused, waiting)
        if self._top:
            self._explained(given, places, answers)
        elif places:
            self._plain(given, places, answers)
        for i in answers.refused:
            answers.status[i] = REJECTED
        return answers

    def _empty(self, chunk: Chunk, refused: dict[int, RowRejected], waiting: dict[int, str]) -> Answers:
        n = len(chunk.rows)
        nothing = np.full(n, np.nan, np.float32)
        classes = np.full((n, len(self._scorer.decision.classes)), np.nan, np.float32)
        status = [WARMING_UP if i in waiting else OK for i in range(n)]
        return Answers(
            chunk.first,
            self._scorer.digest,
            status,
            [None] * n,
            nothing,
            nothing.copy(),
            classes,
            [None] * n,
            refused,
            waiting,
            lines=chunk.lines,
        )

    def _plain(self, given: Any, places: list[int], answers: Answers) -> None:
        try:
            said = self._scorer.score_batch(given)
        except ArtifactError:
            self._one_by_one(given, places, answers)
            return
        self._enter(said, places, answers)

    def _enter(self, said: BatchScores, places: list[int], answers: Answers) -> None:
        at = np.array(places, np.intp)
        answers.score[at], answers.margin[at], answers.probabilities[at] = said.score, said.margin, said.probabilities
        for k, i in enumerate(places):
            answers.label[i] = said.label[k]
            if said.outlier is not None and said.outlier_scores is not None and k not in said.rejected:
                answers.outlier[i] = None if math.isnan(said.outlier_scores[k]) else bool(said.outlier[k])
        answers.refused.update({places[k]: err for k, err in said.rejected.items()})

    def _one_by_one(self, given: Any, places: list[int], answers: Answers) -> None:
        """The runtime failed on the chunk: find the rows that it fails on."""
        for k, i in enumerate(places):
            try:
                self._enter(self._scorer.score_batch(given[k : k + 1]), [i], answers)
            except ArtifactError as err:
                answers.refused[i] = RowRejected(None, str(err)[:200], "a row that the model can answer", RUNTIME_FAILED)

    def _explained(self, given: Any, places: list[int], answers: Answers) -> None:
        for k, i in enumerate(places):
            try:
                score = self._scorer.score(given[k], explain=True)
            except RowRejected as err:
                answers.refused[i] = err
                continue
            except ArtifactError as err:
                answers.refused[i] = RowRejected(None, str(err)[:200], "a row that the model can answer", RUNTIME_FAILED)
                continue
            answers.label[i], answers.score[i], answers.margin[i] = score.label, score.score, score.margin
            answers.probabilities[i] = score.probabilities
            answers.outlier[i] = outlier_if_known(score)
            explanation = score.explanation
            assert explanation is not None  # noqa: S101 - it was asked for
            label = score.label if self._task == "classification" else None
            values = self._values(given[k])
            answers.told[i] = Told(
                explanation.as_text(self._inputs, values, label, self._top), explanation.as_plain(self._inputs, values, self._top)
            )

    def _values(self, row: Any) -> NDArray[np.float32]:
        """[F] values of a row that was scored, or of the newest row of its window."""
        if self.windows is not None:
            return np.asarray(row[-1], np.float32)
        parsed, _ = self._checks.parse_rows([row])
        values: NDArray[np.float32] = parsed[0]
        return values

    def _windows_of(self, chunk: Chunk, windows: Windows) -> tuple[NDArray[np.float32], list[int], dict[int, RowRejected], dict[int, str]]:
        """Windows [m, T, F] that end in this chunk, the place of each one's last row, and why other rows have none."""
        if isinstance(chunk.rows, np.ndarray):
            matrix, unparsed = self._checks.parse_rows(chunk.rows)
        else:
            matrix, unparsed = self._checks.parse_rows([() if isinstance(row, RowRejected) else row for row in chunk.rows])
            unparsed |= {i: row for i, row in enumerate(chunk.rows) if isinstance(row, RowRejected)}
        _, refused = self._checks.admit_rows(matrix)
        refused = {**refused, **unparsed}  # a row that did not parse is NaN, which admit would call missing
        made, places, waiting = [], [], {}
        for i in range(len(matrix)):
            group = chunk.groups[i] if chunk.groups else ""
            if i in refused:
                windows.broken(group)
                continue
            try:
                window = windows.push(matrix[i], group, chunk.times[i] if chunk.times else None)
            except RowRejected as err:
                refused[i] = err
                continue
            if window is None:
                waiting[i] = windows.waiting(group)
            else:
                made.append(window.copy())
                places.append(i)
        stacked = np.stack(made) if made else np.empty((0, *windows.shape), np.float32)
        return stacked, places, refused, waiting
