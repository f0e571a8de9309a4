"""What is wrong with tensors, as HTTP says it: 413 for more values than the limit, 400 for everything else."""

from collections.abc import Iterator
from contextlib import contextmanager

from device_agent.doors.http.exchange import Refused
from device_agent.doors.oip.columns import check_size
from device_agent.doors.oip.tensors import TensorRefused


@contextmanager
def told_in_http() -> Iterator[None]:
    """Turn a `TensorRefused` into a `Refused`."""
    try:
        yield
    except TensorRefused as err:
        raise Refused(413 if err.reason == "elements" else 400, str(err), err.reason) from err


def check_rows(rows: int, values: int, elements: int) -> None:
    """Refuse rows of so many values each that are more than `elements` values together.

    Raises:
        Refused: 413.
    """
    with told_in_http():
        check_size(rows, values, elements)
