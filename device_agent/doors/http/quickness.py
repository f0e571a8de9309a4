"""Which requests the door's loop answers itself, and which get a thread.

A thread of its own costs a small request more than its answer: several threads that want the interpreter hand it around, at twice the
processor time a request. A long request in the loop would hold up everybody else's. So the loop takes what is small and has been quick.
"""

from typing import Final

from device_agent.doors.http.explaining import SUFFIX
from device_agent.doors.http.wire import Head

# Larger bodies seldom come in one piece.
SMALL_BODY: Final = 16_384
# A model that takes longer is better answered by as many threads as there are processors: the runtimes let go of the interpreter.
LONG_S: Final = 0.0005
_LONG_VOTES: Final = 4
_MOST_VOTES: Final = 8
# Each of these may open a model, explain, or unpack much from little.
_LONG_PATHS: Final = (SUFFIX + "/", "/versions/")


def scores(head: Head) -> bool:
    """Whether the request brings rows."""
    path = head.path.rstrip("/")  # as the application reads it
    return head.method == "POST" and (path == "/invocations" or path.endswith("/infer"))


class Quickness:
    """Whether requests for scores have been quick lately; one outlier changes nothing, four long ones in a row do.

    Read and written by any thread without a lock: a lost vote is the next one's.
    """

    def __init__(self) -> None:
        self._votes = 0

    def note(self, seconds: float) -> None:
        """Seconds that a small request for scores took, wherever it was answered."""
        self._votes = min(self._votes + 1, _MOST_VOTES) if seconds > LONG_S else max(self._votes - 1, 0)

    def expects(self, head: Head) -> bool:
        """Whether this request will be answered at once."""
        if not scores(head):
            return head.path.startswith("/v2/health/")
        if head.length > SMALL_BODY or "content-encoding" in head.headers or head.expects_continue:
            return False
        return self._votes < _LONG_VOTES and not any(part in head.path for part in _LONG_PATHS)
