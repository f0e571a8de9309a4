"""Explanations on the device: what moved the answer, in margin units, adding up to the margin of the predicted class.

Linear models (`linear.py`) and trees (`treeshap.py`) are explained exactly; other models by a small network that was fitted to their
Shapley values (`amortised.py`), or by sampled permutations against background rows (`sampled.py`), both with an error bar.
All speak of the margin, never of the probability, where far more samples would be needed.
"""

from typing import Any, Final

from numpy.typing import NDArray

from device_agent.explanation import Explainer, Explanation
from edgefleet.archives import check_archive
from edgefleet.errors import ArtifactError
from edgefleet.package import read_npz

__all__ = ["Explainer", "Explanation", "open_explainer"]

MAX_EXPLAINER_BYTES: Final = 256 * 1024 * 1024


def open_explainer(content: bytes, method: str, names: tuple[str, ...], columns: int) -> Explainer:
    """Read an explainer file whose bytes are already verified.

    Args:
        content: The .npz.
        method: What the manifest says it is.
        names: Input names.
        columns: Columns K of the graph's margin.

    Raises:
        ArtifactError: Damaged, of an unknown method, or contradicting the model.
    """
    arrays = _read_bounded(content)
    found = str(arrays.get("method", ""))
    if found != method:
        raise ArtifactError(f"explainer: its method is {found[:40]!r}, the manifest says {method!r}; convert the package again")
    # A device needs one of them.
    if method == "linear":
        from device_agent.linear import LinearExplainer

        return LinearExplainer(arrays, names, columns)
    if method == "treeshap":
        from device_agent.treeshap import TreeExplainer

        return TreeExplainer(arrays, names, columns)
    if method == "amortised":
        from device_agent.amortised import AmortisedExplainer

        return AmortisedExplainer(arrays, names, columns)
    if method == "sampled":
        from device_agent.sampled import SampledExplainer

        return SampledExplainer(arrays.get("background"), names, players=arrays.get("players"))
    raise ArtifactError(f"explainer: method {method!r} is unknown, this agent knows linear, treeshap, amortised and sampled; upgrade it")


def _read_bounded(content: bytes) -> dict[str, NDArray[Any]]:
    check_archive(content, "explainer", ".npz", max_unpacked_bytes=MAX_EXPLAINER_BYTES)
    return read_npz(content, (), "explainer")
