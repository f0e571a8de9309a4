"""One run: source -> answerer -> sink, chunk by chunk, with a journal where the output is a file.

What a kill at any moment leaves behind: an output under its own name is whole; else OUT.partial and OUT.journal say where to go on.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from device_agent.doors.batch.journal import Journal, read_journal
from device_agent.doors.batch.rows import Answered, BadRow, Chunk, Position, Source, Tally
from device_agent.doors.batch.sinks import Sink, TextSink, alone
from device_agent.doors.batch.windows import Windows
from edgefleet.errors import InputError, TransportError

# Longest time of answers that a kill makes us compute again.
KEEP_S: Final = 1.0


class Answerer(Protocol):
    """Answers chunks.

    Attributes:
        windows: Rows that are remembered from chunk to chunk, None where none are.
    """

    windows: Windows | None

    def answer(self, chunk: Chunk) -> Answered:
        """Answer every row of a chunk."""
        ...


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run reads, asks and writes.

    Attributes:
        answerer: Who is asked.
        open_source: Opens the input at a position.
        open_sink: Opens the output behind what is whole of it.
        open_bad: Opens the side file likewise, None for none.
        place: Steps that give whole outputs their names; each may be done again.
        options: All that decides what an answer looks like.
        input_name: Of the input, for people.
        input_size_bytes: Of the input file, 0 for a pipe.
        output: The output file, None for a stream.
        journal: The journal file, None for a stream.
        timed: Whether rows have times.
    """

    answerer: Answerer
    open_source: Callable[[Position], Source]
    open_sink: Callable[[int], Sink]
    open_bad: Callable[[int], TextSink] | None = None
    render_bad: Callable[[list[BadRow]], bytes] | None = None
    place: tuple[Callable[[], None], ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    input_name: str = "-"
    input_size_bytes: int = 0
    output: Path | None = None
    journal: Path | None = None
    timed: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        tally: What became of all rows, those of earlier runs included.
        seconds: Time that all runs took.
        resumed_at: Rows that earlier runs had answered.
    """

    tally: Tally
    seconds: float
    resumed_at: int


# Told after each chunk: the position, and the size in the same unit (None for a pipe). True asks the run to stop at this chunk's end.
Said = Callable[[Position, int | None], bool]


def run(plan: Plan, resume: bool = False, said: Said | None = None) -> Outcome:
    """Score an input from beginning to end, or from where its journal stands.

    Args:
        plan: What to do.
        resume: Go on from the journal, if there is one.
        said: Progress; may end the run early, which can then be resumed.

    Raises:
        InputError: The input cannot be read as a whole, or is another than the one that was begun.
        StorageError: The disk refuses; the same run can be resumed.
        OutputBusy: Another process writes this output.
    """
    with alone(plan.output):
        return run_alone(plan, resume, said)


def run_alone(plan: Plan, resume: bool = False, said: Said | None = None) -> Outcome:
    """As `run`, for who has the output to himself (`sinks.alone`)."""
    journal = _begin(plan, resume)
    at_first = journal.position.rows
    if journal.state in ("running", "done"):
        with contextlib.closing(plan.open_source(journal.position)) as source:
            if at_first and source.fingerprint() != journal.input_sha256:
                raise InputError(
                    f"the first {at_first} rows of {plan.input_name} are not those that were scored; start anew without --resume"
                )
            if journal.state == "running" and not _answer_all(plan, journal, source, said):
                return Outcome(journal.tally, journal.seconds, at_first)
    for step in plan.place:
        step()
    if plan.journal is not None and journal.state != "done":
        journal.state = "done"
        journal.write(plan.journal)
    return Outcome(journal.tally, journal.seconds, at_first)


def _begin(plan: Plan, resume: bool) -> Journal:
    fresh = Journal(input_name=plan.input_name, input_size_bytes=plan.input_size_bytes, input_sha256="", options=plan.options)
    if plan.journal is None or plan.output is None:
        return fresh
    if not resume:
        return fresh
    found = read_journal(plan.journal)
    if found is None:
        if plan.output.exists():
            raise InputError(
                f"{plan.output} is there without a journal, nobody knows of what; name another --output, or leave --resume out"
            )
        return fresh
    found.check(plan.input_size_bytes, plan.options)
    if found.state == "failed":
        raise InputError(found.why)
    return found


def _answer_all(plan: Plan, journal: Journal, source: Source, said: Said | None) -> bool:
    """Answer what is left of the source; False when it was stopped on the way."""
    windows = plan.answerer.windows
    if windows is not None:
        windows.restore(journal.windows, plan.timed)
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(contextlib.closing(plan.open_sink(journal.output)))
        bad = stack.enter_context(contextlib.closing(plan.open_bad(journal.bad_bytes))) if plan.open_bad else None
        keeper = _Keeper(plan, journal, source, sink, bad)
        for chunk in source.chunks():
            try:
                answered = plan.answerer.answer(chunk)
            except TransportError:
                # What the server answered so far is not asked again. Nobody who can lose a connection remembers rows.
                keeper.keep(sink.keep())
                raise
            sink.write(answered)
            if bad is not None and plan.render_bad is not None and answered.bad:
                bad.append(plan.render_bad(answered.bad))
            journal.tally.add(answered.tally)
            keeper.passed(chunk)
            stopped = said is not None and said(chunk.end, source.size)
            if keeper.due() or stopped:
                keeper.keep(sink.keep())
            if stopped:
                return False
        journal.state = "placing"
        keeper.keep(sink.complete())
    return True


class _Keeper:
    """Brings the journal up to date, outputs first."""

    def __init__(self, plan: Plan, journal: Journal, source: Source, sink: Sink, bad: TextSink | None) -> None:
        self._plan, self._journal, self._source, self._sink, self._bad = plan, journal, source, sink, bad
        self._end, self._fingerprint = journal.position, source.fingerprint() if plan.journal is not None else None
        self._before = journal.seconds
        self._start = self._last = time.monotonic()

    def passed(self, chunk: Chunk) -> None:
        self._end = chunk.end
        if self._plan.journal is not None:
            self._fingerprint = self._source.fingerprint()

    def due(self) -> bool:
        return self._plan.journal is not None and time.monotonic() - self._last >= KEEP_S

    def keep(self, output: Any) -> None:
        now = time.monotonic()
        journal, windows = self._journal, self._plan.answerer.windows
        journal.seconds = self._before + now - self._start
        bad_bytes = self._bad.keep() if self._bad is not None else 0
        if self._plan.journal is None or output is None or self._fingerprint is None or bad_bytes is None:
            return
        journal.output, journal.bad_bytes, journal.input_sha256, journal.position = output, bad_bytes, self._fingerprint, self._end
        journal.windows = windows.keep() if windows is not None else {}
        journal.write(self._plan.journal)
        self._last = now
