"""The ring: the last rows and their answers, preallocated; its rows *are* the runtime's input.

Writing a row into the ring is the only copy on the way to the model, and statistics cost nothing per row: they are folded when the ring is
full or a window closes. One more row after the ring is scratch, for a row that the range policy clips: the ring keeps what came in.
Memory: (slots + 1) x (4 x (features + margins + classes)) bytes, about 280 kB for 256 slots and 64 features with the bindings.
"""

from typing import Final

import numpy as np

from device_agent.runtime import Matrix, Session

DEFAULT_SLOTS: Final = 256
NOT_ANSWERED: Final = -1


class Ring:
    """Slots of one session.

    Attributes:
        rows: [slots + 1, F] float32, the last one scratch.
        answers: [slots + 1, K + classes] float32: margin, then probabilities, of each row.
        answer_rows: The same as a list of rows, which is quicker to index.
        run: Runs the model on one row of the ring, by its number.
        latency_ns: Per slot the nanoseconds of its call, NOT_ANSWERED for a row that was counted but refused.
        at: Next slot to be written.
    """

    def __init__(self, session: Session, slots: int = DEFAULT_SLOTS) -> None:
        self.slots = slots
        self.rows: Matrix = np.zeros((slots + 1, session.features), np.float32)
        self.answers: Matrix = np.zeros((slots + 1, session.margins + session.classes), np.float32)
        self.margin, self.probabilities = self.answers[:, : session.margins], self.answers[:, session.margins :]
        self.answer_rows = list(self.answers)
        self.run = session.bind(self.rows, self.margin, self.probabilities)
        self.latency_ns = [NOT_ANSWERED] * slots
        self.at = 0

    def keep_answer(self, slot: int, source: int) -> None:
        """Copy an answer that was computed in the scratch row to the slot that is folded."""
        self.answers[slot] = self.answers[source]

    def clear(self) -> None:
        """Forget the rows after they were folded."""
        self.latency_ns[: self.at] = [NOT_ANSWERED] * self.at
        self.at = 0
