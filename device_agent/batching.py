"""A batch on its way through checks, runtime and statistics; one bad row refuses itself, not the batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from device_agent.checks import RowChecks
from device_agent.counting import Counting
from device_agent.decision import Decision
from device_agent.runtime import Matrix, Session
from device_agent.window_checks import WindowChecks
from edgefleet.errors import ArtifactError, ConfigError, RowRejected

# Reason under which a runtime's own failure is counted.
RUNTIME_FAILED: Final = "runtime"
CLOSED: Final = "the scorer is closed; open the bundle again"


@dataclass(frozen=True, slots=True)
class Batching:
    """What a batch needs of a scorer, whose lock is held meanwhile.

    Attributes:
        detects: Whether the outlier detector is asked too.
        digest: Sha256 of the graph.
    """

    checks: RowChecks | WindowChecks
    runtime: Session
    counting: Counting
    decision: Decision
    detects: bool
    digest: str

    def answer(self, rows: Any, answers: Matrix, strange: Matrix) -> dict[int, RowRejected]:
        """Answer rows as `Scorer.score_batch` takes them.

        Args:
            rows: n of them.
            answers: [n, width], NaN; written where a row was answered.
            strange: [n], NaN; outlier scores of those rows.

        Returns:
            The refusals by row number.

        Raises:
            ArtifactError: The runtime failed; the rows that it was given are counted as refused.
        """
        matrix, unparsed = self.checks.parse_rows(rows)
        admitted, refused = self.checks.admit_rows(matrix)
        refused = {**refused, **unparsed}  # a row that did not parse is NaN, which admit would call missing
        for rejection in refused.values():
            self.counting.reject(rejection.reason)
        parsed: slice | NDArray[np.bool_] = slice(None)  # copies nothing
        scored, counted = parsed, np.ones(len(matrix), bool)
        if refused:
            parsed, scored = _others(unparsed, len(matrix)), _others(refused, len(matrix))
            counted = scored[parsed]
        given = admitted[scored]
        try:
            if len(given):
                margins, shares = self.runtime.run(given.reshape(-1, *self.runtime.shape))
                answers[scored, : self.decision.margins], answers[scored, self.decision.margins :] = margins, shares
        except Exception as err:  # a runtime raises kinds of its own
            self.counting.reject(RUNTIME_FAILED, len(given))
            counted[:] = False
            raise ArtifactError(f"model {self.digest[:12]} failed on {len(given)} rows: {str(err)[:200]}") from err
        finally:
            self.counting.fold_batch(matrix[parsed], answers[parsed], counted)
        if self.detects:
            strange[scored] = self.counting.detect(matrix[scored])
        return refused

    def answer_aside(self, row: Any) -> tuple[Matrix, Matrix]:
        """What the model was given of a row, in its shape, and its answer [width]; nothing is counted.

        Raises:
            RowRejected: The row is refused.
            ArtifactError: The runtime failed.
        """
        parsed, unparsed = self.checks.parse_rows([row])
        given, refused = self.checks.admit_rows(parsed)
        for rejection in (unparsed or refused).values():
            raise rejection
        shaped = given.reshape(-1, *self.runtime.shape)
        try:
            margins, shares = self.runtime.run(shaped)
        except Exception as err:  # a runtime raises kinds of its own
            raise ArtifactError(f"model {self.digest[:12]} failed on a row: {str(err)[:200]}") from err
        return shaped[0].copy(), np.concatenate([margins[0], shares[0]])

    def margins_aside(self, rows: Matrix) -> Matrix:
        """[n, K] margins of rows that are no traffic; nothing is counted.

        Raises:
            ArtifactError: The runtime failed.
        """
        try:
            return self.runtime.run(rows)[0]
        except Exception as err:  # a runtime raises kinds of its own
            raise ArtifactError(f"model {self.digest[:12]} failed on rows of an explanation: {str(err)[:200]}") from err


class ClosedBatching:
    """What stands in its place when the scorer is closed."""

    def answer_aside(self, row: Any) -> tuple[Matrix, Matrix]:
        """Refuse everything."""
        raise ConfigError(CLOSED)

    def margins_aside(self, rows: Matrix) -> Matrix:
        """Refuse everything."""
        raise ConfigError(CLOSED)

    def answer(self, rows: Any, answers: Matrix, strange: Matrix) -> dict[int, RowRejected]:
        """Refuse everything."""
        raise ConfigError(CLOSED)


def _others(refused: Mapping[int, object], count: int) -> NDArray[np.bool_]:
    """Which of `count` rows are not refused."""
    others = np.ones(count, bool)
    others[list(refused)] = False
    return others
