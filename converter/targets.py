"""What a writer of one target is asked and what it leaves: plain values, because each runs in a child process of its own."""

from typing import Any, Final

import msgspec

from edgefleet.manifest import ExplainMethod

MAX_NOTES: Final = 8


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One target's work.

    Attributes:
        package: Folder of the model package.
        target: Name of the target.
        result: Path of the file to write.
        source: Path of the float graph that an integer or half-precision target starts from; "" for those that start from the model.
        folder: Folder for intermediate files, the job's own.
        calibration_rows: Most calibration rows to look at; 0 takes all that the package has.
        keep_float: Names of layers that stay float (mixed precision).
        explain: The project's `[explain] method`, for targets that explain by a function of their own (C).
    """

    package: str
    target: str
    result: str
    source: str = ""
    folder: str = ""
    calibration_rows: int = 0
    keep_float: list[str] = []
    explain: str = "auto"


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What a writer says beside its file.

    Attributes:
        notes: Sentences for the model card, at most MAX_NOTES.
        operators: Names of the graph's operators, sorted.
        opset: Of the standard domain; 0 for other formats.
        takes_missing: Whether a missing value, where the schema allows it, is answered as the original does; integer arithmetic that meets
            NaN answers it with confidence, so that the device must refuse such rows.
        facts: Plain values for the report: layers kept float, calibration rows by stratum, compiler ...
        files: Further files that belong to the variant, by name inside the bundle: path on disk.
        explained: How a function inside the file explains answers; None: there is none.
        explain_reason: Why there is none, else "".
    """

    notes: list[str] = []
    operators: list[str] = []
    opset: int = 0
    takes_missing: bool = True
    facts: dict[str, Any] = {}
    files: dict[str, str] = {}
    explained: ExplainMethod | None = None
    explain_reason: str = ""


def job_of(document: dict[str, Any]) -> Job:
    """The job from what the parent sent."""
    return msgspec.convert(document, Job)


def answer(made: Made) -> dict[str, Any]:
    """What goes back to the parent."""
    document: dict[str, Any] = msgspec.to_builtins(made)
    return document
