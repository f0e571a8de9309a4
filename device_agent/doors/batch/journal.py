"""The journal beside an output: how far it is whole. It is written after the bytes that it speaks of, so that it never promises more.

When the run is done it stays as the receipt: what was scored, by which bundle, with what result. The same run asked for again is then done.
"""

from pathlib import Path
from typing import Final, Literal

import msgspec

from device_agent.doors.batch.rows import Position, Tally
from device_agent.doors.batch.sinks import writing
from device_agent.doors.batch.windows import Kept
from edgefleet.errors import InputError
from edgefleet.files import write_durably

FORMAT_VERSION: Final = 1
MAX_JOURNAL_BYTES: Final = 64 * 1024 * 1024
_WORDS: Final = {"bundle": "the bundle", "variant": "the variant", "url": "the server", "model": "the model"}


class Journal(msgspec.Struct, kw_only=True):
    """One run.

    Attributes:
        input_name: Name of the input, for people.
        input_size_bytes: Its size.
        input_sha256: `Source.fingerprint` at `position`.
        options: Everything that decides what an answer looks like, by name; `bundle` is the bundle's digest.
        position: Where to go on in the input.
        output: Whole bytes of the output, or whole parts of a Parquet one.
        bad_bytes: Whole bytes of the side file.
        tally: What became of the rows before `position`.
        windows: Last rows of each group, where single rows become windows.
        seconds: Time spent, over all runs.
        state: `running`; `placing` when all answers are on the disk and only names change; `done`; `failed`: no such input can be scored.
        why: Why it failed, else "".
    """

    format_version: int = FORMAT_VERSION
    input_name: str
    input_size_bytes: int
    input_sha256: str
    options: dict[str, str]
    position: Position = Position()
    output: int = 0
    bad_bytes: int = 0
    tally: Tally = msgspec.field(default_factory=Tally)
    windows: Kept = {}
    seconds: float = 0.0
    state: Literal["running", "placing", "done", "failed"] = "running"
    why: str = ""

    def write(self, path: Path) -> None:
        """Replace the journal by this one, durably.

        Raises:
            StorageError: The disk refuses.
        """
        with writing(path):
            write_durably(path, msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")

    def check(self, size_bytes: int, options: dict[str, str]) -> None:
        """Hold it against what is asked for now.

        Raises:
            InputError: The input or an option is another; the message names which.
        """
        if size_bytes != self.input_size_bytes:
            raise InputError(
                f"the input had {self.input_size_bytes} bytes when {self.input_name} was begun and has {size_bytes} now; "
                "start anew without --resume"
            )
        for name in sorted({*self.options, *options}):
            before, now = self.options.get(name, "nothing"), options.get(name, "nothing")
            if before != now:
                what = _WORDS.get(name, f"the option {name}")
                raise InputError(
                    f"{what} was {before[:64]} when {self.input_name} was begun and is {now[:64]} now; start anew without --resume"
                )


def journal_of(output: Path) -> Path:
    """Name of the journal of an output."""
    return output.with_name(output.name + ".journal")


def read_journal(path: Path) -> Journal | None:
    """The journal, None where there is none.

    Raises:
        InputError: It cannot be read.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_JOURNAL_BYTES + 1)
        journal = msgspec.json.decode(content, type=Journal)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as err:
        raise InputError(f"{path}: the journal cannot be read: {str(err)[:200]}; start anew without --resume") from err
    if journal.format_version != FORMAT_VERSION:
        raise InputError(
            f"{path}: journal of format {journal.format_version}, this program reads {FORMAT_VERSION}; start anew without --resume"
        )
    return journal
