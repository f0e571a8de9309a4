"""An explainer file of windows whose time segments were not proven: the same explanation, told by whole channels."""

import numpy as np

from edgefleet.package import npz_bytes, read_npz
from edgefleet.players import by_segment


def without_segments(content: bytes) -> bytes:
    """The file without its time segments.

    A student and a closed form keep their contributions, which are sums of segments already. Sampling then draws orders of whole channels:
    fewer evaluations, and narrower bars.

    Args:
        content: An explainer file of the methods `linear`, `amortised` or `sampled`; others come back as they are.
    """
    arrays = read_npz(content, (), "explainer")
    players = arrays.pop("players", None)
    method = str(arrays["method"])
    if method == "linear":
        arrays.pop("rows", None)
        arrays.pop("background_values", None)
    elif players is None or players.ndim != 2:
        return content
    elif method == "amortised":
        for name in ("second", "second_bias", "rest"):
            arrays[name] = by_segment(arrays[name], players.shape[1]).sum(axis=-2, dtype=np.float64).astype(arrays[name].dtype)
    return npz_bytes(arrays)
