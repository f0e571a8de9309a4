"""Two models share the rows: the challenger answers its share, the running model the rest, and each counts in windows of its own."""

from typing import Any

from device_agent.doors.ab import check_share, key_bytes, row_key, takes
from device_agent.scorer import Scorer
from edgefleet.errors import ArtifactError, ConfigError

Key = str | int


class Split:
    """One experiment.

    Args:
        running: The model it stands beside.
        challenger: The other one; same task, classes and inputs, so that a caller cannot tell the answers' form apart.
        share_1024: The challenger's share in steps of 1/1024.
        salt: Name of the experiment; another one deals the keys anew.

    Attributes:
        rows: Rows that the challenger was asked.
        fallbacks: Of these, rows on which it failed and the running model answered.
        last_error: Text of its last failure.

    Raises:
        ConfigError: A value is out of range, or the two models are not of one form.
    """

    def __init__(self, running: Scorer, challenger: Scorer, share_1024: int, salt: str) -> None:
        check_share(share_1024, salt)
        if difference := _difference(running, challenger):
            raise ConfigError(f"models with different {difference} cannot share rows: a caller must be able to read both answers alike")
        self.challenger, self.share_1024, self.salt = challenger, share_1024, salt
        self._names = tuple(one.name for one in running.bundle.manifest.inputs)
        self.rows = self.fallbacks = 0
        self.last_error = ""

    def chooses(self, key: Key | None, row: Any) -> bool:
        """Whether the challenger answers.

        Args:
            key: What the answer shall stick to, for example a machine's or a customer's name; None: the row's own values.
            row: One row, or the rows of a batch: a batch is answered by one model.
        """
        if not self.share_1024:
            return False
        return takes(self.salt, row_key(row, self._names) if key is None else key_bytes(key), self.share_1024)

    def fail(self, err: ArtifactError, rows: int = 1) -> None:
        """Note that the running model had to answer."""
        self.fallbacks += rows
        self.last_error = str(err)[:200]


def _difference(running: Scorer, challenger: Scorer) -> str:
    ours, theirs = running.bundle.manifest, challenger.bundle.manifest
    forms = {
        "tasks": (ours.task, theirs.task),
        "classes": (ours.classes, theirs.classes),
        "inputs": ([one.name for one in ours.inputs], [one.name for one in theirs.inputs]),
        "windows": (ours.window_rows, theirs.window_rows),
        "thresholds": (ours.task == "anomaly" and ours.threshold is None, theirs.task == "anomaly" and theirs.threshold is None),
    }
    return next((name for name, (a, b) in forms.items() if a != b), "")
