"""Pieces of C: exact literals, constant tables (equal ones are written once), helper functions that are only written when used."""

import math
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgefleet.errors import VerdictError

MAX_CONSTANT_BYTES: Final = 512 * 1024
_A_LINE: Final = 120
_TYPES: Final = {"float32": "float", "float64": "double", "uint8": "uint8_t", "uint16": "uint16_t", "uint32": "uint32_t"}

_HELPERS: Final = {
    # How many of n rising edges are <= x; 0 for NaN, because every comparison with it is false.
    "count_le": """EXACT static float count_le(const float *edges, int n, float x)
{
  int at = 0;
  while (n > 0) {
    const int half = n / 2;
    if (edges[at + half] <= x) {
      at += half + 1;
      n -= half + 1;
    } else {
      n = half;
    }
  }
  return (float)at;
}
""",
    "softmax": """EXACT static void softmax(const float *logits, float *shares, int n)
{
  float largest = logits[0], sum = 0.0f;
  for (int k = 1; k < n; k++) largest = logits[k] > largest ? logits[k] : largest;
  for (int k = 0; k < n; k++) {
    shares[k] = expf(logits[k] - largest);
    sum += shares[k];
  }
  for (int k = 0; k < n; k++) shares[k] /= sum;
}
""",
    # Exact in both tails, which 1 - p would not be.
    "pair": """EXACT static void pair(float logit, float *shares)
{
  const float small = expf(-fabsf(logit)), rare = small / (1.0f + small), common = 1.0f / (1.0f + small);
  shares[0] = logit < 0.0f ? common : rare;
  shares[1] = logit < 0.0f ? rare : common;
}
""",
}


class Source:
    """A C file as it grows, or a part of one that may be compiled or left out.

    Attributes:
        constant_bytes: What its tables take in read-only memory.
    """

    def __init__(self, prefix: str = "k", before: "Source | None" = None) -> None:
        """An empty one.

        Args:
            prefix: Of the names of its tables.
            before: What stands in front of this part: its tables are used, not written again, and count for the limit.
        """
        self.constant_bytes = 0
        self._prefix, self._before = prefix, before
        self._tables: list[str] = []
        self._names: dict[tuple[str, bytes], str] = {}
        self._helpers: dict[str, None] = {}
        self._functions: list[str] = []

    def table(self, values: ArrayLike, kind: Any = np.float32) -> str:
        """Name of a constant array of the values.

        Raises:
            VerdictError: The constants become larger than MAX_CONSTANT_BYTES.
        """
        flat = np.ascontiguousarray(np.asarray(values), kind).ravel()
        key = (flat.dtype.name, flat.tobytes())
        if self._before is not None and key in self._before._names:
            return self._before._names[key]
        if key not in self._names:
            self.constant_bytes += flat.nbytes
            if self.constant_bytes + (0 if self._before is None else self._before.constant_bytes) > MAX_CONSTANT_BYTES:
                raise VerdictError(
                    f"its constants exceed {MAX_CONSTANT_BYTES} bytes, the limit of the target c: train a smaller model (fewer or flatter "
                    "trees, fewer units or support vectors), or use an onnx or tflite target"
                )
            self._names[key] = f"{self._prefix}{len(self._names)}"
            self._tables.append(f"static const {_TYPES[flat.dtype.name]} {self._names[key]}[{len(flat)}] = {{\n{_lines(flat)}}};\n")
        return self._names[key]

    def helper(self, name: str) -> str:
        """Name of one of the fixed functions, which is then part of the file."""
        self._helpers[name] = None
        return name

    def function(self, text: str) -> None:
        """Append a function."""
        self._functions.append(text)

    def text(self) -> str:
        """Tables, helpers and functions."""
        return "\n".join(["".join(self._tables), *(_HELPERS[name] for name in sorted(self._helpers)), *self._functions])


def literal(value: Any) -> str:
    """A number exactly.

    >>> literal(np.float32(0.1)), literal(np.float64(-2)), literal(np.float32("inf")), literal(7)
    ('0x1.99999ap-4f', '-0x1p+1', 'INFINITY', '7')
    """
    if not isinstance(value, np.floating):
        return str(int(value))
    number = float(value)
    if math.isnan(number):
        return "NAN"
    if math.isinf(number):
        return "INFINITY" if number > 0 else "-INFINITY"
    mantissa, exponent = number.hex().split("p")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    suffix = "f" if value.dtype.itemsize == 4 else ""
    return f"{mantissa}p{exponent}{suffix}"


def text_literal(text: str) -> str:
    r"""A string of C in ASCII, whatever it holds.

    >>> print(text_literal('a"é??/'))
    "a\042\303\251\077\077\057"
    """
    plain = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-.,:")
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode()) + '"'


def smallest(largest: int) -> type[np.unsignedinteger[Any]]:
    """The smallest unsigned type that holds the number."""
    return np.uint8 if largest < 1 << 8 else np.uint16 if largest < 1 << 16 else np.uint32


def _lines(flat: NDArray[Any]) -> str:
    lines, line = [], ""
    for item in _literals(flat):
        if line and len(line) + len(item) > _A_LINE:
            lines.append(line)
            line = ""
        line += item
    return "".join(f"  {each.rstrip()}\n" for each in [*lines, line])


def _literals(flat: NDArray[Any]) -> Iterable[str]:
    return (f"{literal(value)}, " for value in flat)
