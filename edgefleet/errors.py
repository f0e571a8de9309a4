"""One root for every error that edgefleet raises on purpose; the children say who must act.

The exit code of the command line is the class's `exit_code` (0 done, 1 verdict fail or step not ok, 2 usage, 3 bad input,
4 peer unreachable, 78 missing part).
"""


class EdgefleetError(Exception):
    """Root of all deliberate errors. The message names the value, the limit and the remedy."""

    exit_code = 1


class VerdictError(EdgefleetError):
    """A gate, a self-test or a trial said no: the artefact must be changed, retrying is useless."""


class ArtifactError(EdgefleetError):
    """A bundle, package, message or file is damaged or of an unknown version: do not retry, get another one."""

    exit_code = 3


class InputError(EdgefleetError):
    """The caller's data are wrong: the caller must mend them."""

    exit_code = 3


class ConfigError(EdgefleetError):
    """A setting is wrong or missing: the operator must act."""

    exit_code = 3


class TransportError(EdgefleetError):
    """A broker or a server could not be reached: trying again later may help."""

    exit_code = 4


class StorageError(EdgefleetError):
    """The disk refused (full, read-only, broken): the running model goes on, the operator must make room."""


class MissingPartError(EdgefleetError):
    """A program or an optional dependency is not installed: the message is the one line that installs it."""

    exit_code = 78


class RowRejected(InputError):
    """One input row was refused; scoring goes on.

    Attributes:
        feature: Name of the input, or None when the row as a whole is wrong.
        value: What stood there.
        limit: What would have been accepted, in words.
        reason: Machine-readable cause: `count`, `type`, `missing`, `infinite`, `range` or `category`.
    """

    def __init__(self, feature: str | None, value: object, limit: str, reason: str) -> None:
        self.feature, self.value, self.limit, self.reason = feature, value, limit, reason
        what = f"input {feature!r}" if feature is not None else "the row"
        super().__init__(f"{what}: {str(value)[:80]!s} is not accepted ({reason}); expected {limit}")

    def kept(self) -> "RowRejected":
        """This refusal, to be kept as a result: without the frames that it came through, which would keep their rows in memory too."""
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)


class ModelSwapped(EdgefleetError):
    """Rows are in the order of a model that does not answer any more: put them in order again."""


def without_values(err: EdgefleetError) -> str:
    """An error's text for reports that leave the device: of a refused row the input and the reason, not the value, which is payload."""
    if isinstance(err, RowRejected):
        where = "the row as a whole" if err.feature is None else f"input {err.feature!r}"
        return f"a row was refused: {where} ({err.reason})"
    return str(err)[:200]
