"""The digits example's rows: scikit-learn's 1,797 real 8x8 scans of handwritten digits, ink 0 to 16, drawn many times.

Every scan belongs to exactly one of four groups - train, validation, test, device traffic - by one fixed permutation, whatever the seed;
traffic scans are split again so that no two devices share one. A row is a **draw** of a scan: moved by at most one pixel in each direction
(the rim is filled with 0) plus Gaussian noise of standard deviation 0.6, clipped to [0, 16]. So no two rows are equal, but rows of one
scan are alike: the column `scan` lets the trainer widen its intervals for that.

The situation "camera-fault" is invented: contrast falls to 35 % and 8 is added before the noise, as a badly exposed camera would do.
"""

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas

SIDE: Final = 8
INK_MAX: Final = 16.0
NOISE_SD: Final = 0.6
SITUATIONS: Final = ("normal", "camera-fault")
# Draws of each scan per situation. 600 traffic scans are 75 for each of eight devices.
DRAWS: Final = {"train": 6, "validation": 4, "test": 4}
_SCANS: Final = {"train": 800, "validation": 220, "test": 177, "traffic": 600}
_SPLIT_SEED: Final = 20_240_811
_CONTRAST, _OFFSET = 0.35, 8.0


def rows(seed: int, situations: list[str] | None = None, shuffle_labels: bool = False) -> "pandas.DataFrame":
    """Labelled rows for training, validation and test, in random order.

    Args:
        seed: Of shifts, noise and order; the same seed gives the same rows.
        situations: Each scan is drawn again for each of them; ["normal"] when None.
        shuffle_labels: Permute the labels of the training rows, to make a model that is bad on purpose; validation and test stay honest.

    Returns:
        Columns p00 .. p77 (row, column; float32), label (text), split (train | validation | test), slice (the situation),
        row_id (unique), scan (index of the scan in the data set).
    """
    import pandas

    rng = np.random.default_rng([seed, 1])
    _, labels = _digits()
    parts: list[dict[str, Any]] = []
    images: list[NDArray[np.float32]] = []
    for split, draws in DRAWS.items():
        for situation in situations or ["normal"]:
            index = np.repeat(group(split), draws)
            images.append(draw(index, situation, rng))
            draw_number = np.tile(np.arange(draws), len(index) // draws)
            parts.append(
                {
                    "label": labels[index].astype(str),
                    "split": np.full(len(index), split),
                    "slice": np.full(len(index), situation),
                    "row_id": [f"scan-{s}-{situation}-{d}" for s, d in zip(index, draw_number, strict=True)],
                    "scan": index,
                }
            )
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if shuffle_labels:
        training = np.flatnonzero(columns["split"] == "train")
        columns["label"][training] = columns["label"][np.random.default_rng([seed, 3]).permutation(training)]
    order = rng.permutation(len(columns["label"]))
    pixels = pandas.DataFrame(np.concatenate(images)[order], columns=[f"p{r}{c}" for r in range(SIDE) for c in range(SIDE)])
    return pixels.assign(**{name: values[order] for name, values in columns.items()})


def traffic(
    seed: int, device_index: int, devices: int, rows: int, situation: str = "normal"
) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    """What one device's camera sees: draws of its own scans, which no other device, and no split, has.

    Args:
        seed: Of choice, shifts and noise.
        device_index: 0 to devices - 1.
        devices: Number of devices that share the traffic scans.
        rows: Number of rows.
        situation: "normal" or "camera-fault".

    Returns:
        x [rows, 64] float32 and the true labels [rows] as text.

    Raises:
        ValueError: The device index is not below the number of devices, or there are more devices than scans.
    """
    scans = group("traffic")
    if not 0 <= device_index < devices <= len(scans):
        raise ValueError(f"device {device_index} of {devices}: expected an index below the number of devices, at most {len(scans)} devices")
    rng = np.random.default_rng([seed, 2, device_index])
    index = rng.choice(scans[device_index::devices], size=rows)
    return draw(index, situation, rng), _digits()[1][index].astype(str)


def group(split: str) -> NDArray[np.int64]:
    """Indices of the scans of `train`, `validation`, `test` or `traffic`; the four are disjoint and together all scans."""
    order = np.random.default_rng(_SPLIT_SEED).permutation(sum(_SCANS.values()))
    names = list(_SCANS)
    start = sum(_SCANS[name] for name in names[: names.index(split)])
    return order[start : start + _SCANS[split]]


def draw(index: NDArray[np.int64], situation: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw the scans `index` once each under a situation: shift, situation, noise, clip. Returns [n, 64] float32."""
    moved = shift(_digits()[0][index], rng.integers(-1, 2, size=(len(index), 2)))
    return noise(expose(moved, situation), rng).reshape(len(index), SIDE * SIDE)


def shift(images: NDArray[np.float32], by: NDArray[np.int64]) -> NDArray[np.float32]:
    """Move images [n, 8, 8] by (down, right) pixels [n, 2], each -1, 0 or 1; what comes in from the rim is 0."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    down = 1 - by[:, 0, None] + np.arange(SIDE)
    right = 1 - by[:, 1, None] + np.arange(SIDE)
    moved: NDArray[np.float32] = padded[np.arange(len(images))[:, None, None], down[:, :, None], right[:, None, :]]
    return moved


def expose(images: NDArray[np.float32], situation: str) -> NDArray[np.float32]:
    """Contrast and offset of a situation; clipping follows with the noise.

    Raises:
        ValueError: The situation is unknown.
    """
    if situation not in SITUATIONS:
        raise ValueError(f"situation {situation!r} is unknown: one of {', '.join(SITUATIONS)}")
    return images if situation == "normal" else images * np.float32(_CONTRAST) + np.float32(_OFFSET)


def noise(images: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Add Gaussian noise and clip to the ink's range."""
    noisy = images + rng.normal(0.0, NOISE_SD, size=images.shape)
    return np.clip(noisy, 0.0, INK_MAX).astype(np.float32)


@cache
def _digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images.astype(np.float32), digits.target.astype(np.int64)
