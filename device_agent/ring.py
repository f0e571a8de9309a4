"""The ring: the last rows and their answers, preallocated; its rows *are* the runtime's input.

Writing a row into the ring is the only copy on the way to the model, and statistics cost nothing per row: they are folded when the ring is
full or a window closes. One more row after the ring is scratch, for a row that the range policy clips: the ring keeps what came in.
A model of windows has a whole window in each slot, so that nothing has to be put together when it runs.
Memory: (slots + 1) x 4 x (window rows x features + margins + classes) bytes, about 280 kB for 256 slots and 64 features with the bindings.
"""

from typing import Final

import numpy as np

from device_agent.runtime import Matrix, Session

DEFAULT_SLOTS: Final = 256
# Wide rows and windows get a shorter ring than asked for.
MAX_RING_BYTES: Final = 16 * 1024 * 1024
NOT_ANSWERED: Final = -1


class Ring:
    """Slots of one session.

    Args:
        session: The model.
        slots: Rows until the ring is full.

    Attributes:
        rows: [slots + 1, values] float32, the last one scratch; values = features of a row, or window rows x features.
        answers: [slots + 1, K + classes] float32: margin, then probabilities, of each row.
        answer_rows: The same as a list of rows, which is quicker to index.
        runs: For each row of the ring what runs the model on it.
        latency_ns: Per slot the nanoseconds of its call, NOT_ANSWERED for a row that was counted but refused.
        at: Next slot to be written.
    """

    def __init__(self, session: Session, slots: int = DEFAULT_SLOTS) -> None:
        self.slots = slots
        tensors = np.zeros((slots + 1, *session.shape), np.float32)
        self.rows: Matrix = tensors.reshape(slots + 1, -1)
        self.answers: Matrix = np.zeros((slots + 1, session.margins + session.classes), np.float32)
        self.answer_rows = list(self.answers)
        self.runs = session.bind(tensors, self.answers)
        self.latency_ns = [NOT_ANSWERED] * slots
        self.at = 0

    def keep_answer(self, slot: int, source: int) -> None:
        """Copy an answer that was computed in the scratch row to the slot that is folded."""
        self.answers[slot] = self.answers[source]

    def clear(self) -> None:
        """Forget the rows after they were folded."""
        self.latency_ns[: self.at] = [NOT_ANSWERED] * self.at
        self.at = 0
