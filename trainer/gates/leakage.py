"""G3: nothing that training saw comes back in validation or test, and no input is the answer in disguise."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.delong import area, middle_ranks
from edgefleet.manifest import Input
from trainer.criteria import Criteria
from trainer.dataset import SPLITS, DataSet
from trainer.gates.verdicts import Gate
from trainer.metrics import Floats

SUSPICIOUS: Final = 0.98
_ROWS: Final = 20_000  # looked at by the checks that sort
_PAIRS: Final = 50  # of classes
_HASH_SEED: Final = 20_260_101
_CHUNK: Final = 262_144


def judge_leakage(project: Criteria, rows: DataSet) -> Gate:
    """G3: exact for names, groups, equal rows and time order; one test by numbers.

    Row ids and groups may stand in one split only. Of validation and test rows (or windows) at most `gates.max_equal_rows_fraction`, by
    default none, may equal a training row. With splits by time no row is older than one of an earlier split. An input that alone tells the
    label (lower bound of the AUC, or of |rank correlation| for numbers, above .98) is inconclusive: look at it.
    """
    found = {"row ids": in_two_splits(rows.row_id, rows.split)}
    if rows.group is not None:
        found["groups"] = in_two_splits(rows.group, rows.split)
    equal, asked = _seen_in_training(rows)
    most = project.gates.max_equal_rows_fraction
    found["equal rows"] = equal if equal > most * asked else 0
    repeated = len(rows) - len(np.unique(rows.row_id))
    late = _out_of_order(rows) if project.data.splits.method == "time" and rows.time is not None else 0
    count, n = sum(found.values()) + repeated + late, len(rows)
    if count:
        words = [f"{number} {what} stand in two splits" for what, number in found.items() if number and what != "equal rows"]
        if found["equal rows"]:
            words += [f"{equal} of {asked} validation and test rows equal a training row (gates.max_equal_rows_fraction = {most:g})"]
        words += [f"{repeated} row ids are repeated"] if repeated else []
        words += [f"{late} rows are older than a row of an earlier split"] if late else []
        sentence = f"{' and '.join(words)}: validation would praise what was learnt by heart."
        return Gate(gate="G3", verdict="fail", value=count, limit=0, n=n, sentence=sentence)
    sentence = f"No {', '.join(found)} in two splits, and no row id twice, among {n} rows."
    if equal:
        sentence = (
            f"No {' or '.join(what for what in found if what != 'equal rows')} in two splits, no row id twice, and {equal} of {asked}"
        )
        sentence += f" validation and test rows equal a training row (at most {most:.1%}), among {n} rows."
    training = rows.of("train")
    best = _best_single(training, project.inputs, project.goal.task)
    if best is None:
        return Gate(gate="G3", verdict="pass", value=0, limit=0, n=n, sentence=sentence)
    name, value, lower = best
    measure = "AUC" if project.goal.task in ("classification", "anomaly") else "rank correlation"
    sentence += f" The best single input is {name}, {measure} {value:.3f} [{lower:.3f} at least]"
    if lower > SUSPICIOUS:
        sentence += f", above {SUSPICIOUS}: look whether it is known before the answer is."
        return Gate(gate="G3", verdict="inconclusive", value=value, limit=SUSPICIOUS, n=n, low=lower, sentence=sentence)
    return Gate(gate="G3", verdict="pass", value=0, limit=0, n=n, sentence=f"{sentence}.")


def in_two_splits(names: NDArray[Any], split: NDArray[np.str_]) -> int:
    """How many names occur in more than one split."""
    distinct, index = np.unique(names, return_inverse=True)
    splits, place = np.unique(split, return_inverse=True)
    seen = np.zeros((len(distinct), len(splits)), np.bool_)
    seen[index.reshape(-1), place.reshape(-1)] = True
    return int((seen.sum(axis=1) > 1).sum())


def row_hashes(x: NDArray[np.float32]) -> NDArray[np.uint64]:
    """[n] number of each row's values: equal rows have equal ones, -0 is 0 and any NaN is NaN.

    Two different rows among a million share one with a probability of 3e-8 (random multipliers over 64 bits, then mixed).
    """
    flat = x.reshape(len(x), -1)
    rng = np.random.default_rng(_HASH_SEED)
    multipliers = rng.integers(1, 2**63, size=(2, flat.shape[1]), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    hashes = np.empty(len(flat), np.uint64)
    for start in range(0, len(flat), _CHUNK):
        part = flat[start : start + _CHUNK] + np.float32(0)
        part[np.isnan(part)] = np.nan
        bits = part.view(np.uint32)
        one, two = np.zeros(len(bits), np.uint64), np.zeros(len(bits), np.uint64)
        for j in range(bits.shape[1]):  # a column at a time: no second copy of the rows in 64 bits
            column = bits[:, j].astype(np.uint64) + np.uint64(1)
            mixed = column * multipliers[0, j]
            one += mixed ^ (mixed >> np.uint64(29))
            two += column * multipliers[1, j]
        hashes[start : start + _CHUNK] = one ^ (two >> np.uint64(32)) ^ (two << np.uint64(32))
    return hashes


def _seen_in_training(rows: DataSet) -> tuple[int, int]:
    """(validation and test rows whose values equal those of a training row, validation and test rows)."""
    hashes = row_hashes(rows.x)
    training = rows.split == "train"
    return int(np.isin(hashes[~training], hashes[training]).sum()), int((~training).sum())


def _out_of_order(rows: DataSet) -> int:
    """Rows older than the newest row of an earlier split."""
    assert rows.time is not None  # noqa: S101  # the caller looked
    newest, late = -np.inf, 0
    for name in SPLITS:
        times = rows.time[rows.split == name]
        late += int((times < newest).sum())
        newest = max(newest, float(times.max(initial=-np.inf)))
    return late


def _some(rows: DataSet, limit: int) -> DataSet:
    if len(rows) <= limit:
        return rows
    return rows.take(np.sort(np.random.default_rng(0).choice(len(rows), limit, replace=False)))


def _best_single(training: DataSet, inputs: list[Input], task: str) -> tuple[str, float, float] | None:
    """(input, value, one-sided 95 % lower bound) of the input that tells the label best by itself."""
    rows = _some(training, _ROWS)
    x = rows.x if rows.x.ndim == 2 else rows.x[:, -1]
    if len(rows) < 30 or (task in ("classification", "anomaly") and len(np.unique(rows.label)) < 2):
        return None
    measure = _pair_areas if task in ("classification", "anomaly") else _rank_correlation
    best: tuple[str, float, float] | None = None
    for place, column in enumerate(inputs):
        # A missing value ranks below all: that it is missing may be what tells. Infinite stands for "below all" only here.
        values = np.where(np.isnan(x[:, place]), -np.inf, x[:, place].astype(np.float64))
        if column.kind == "category":
            values, label = _encoded(values, rows.label)
        else:
            label = rows.label
        if len(np.unique(values[:1000])) < 2 and len(np.unique(values)) < 2:
            continue
        found = measure(values, label)
        if found is not None and (best is None or found[1] > best[2]):
            best = (column.name, *found)
    return best


def _encoded(values: Floats, label: NDArray[Any]) -> tuple[Floats, NDArray[Any]]:
    """Categories as the mean label of the other half of the rows; the half that is asked, and its labels."""
    known, asked = values[::2], values[1::2]
    _, codes = np.unique(np.concatenate([known, asked]), return_inverse=True)
    codes = codes.reshape(-1)
    count = np.bincount(codes[: len(known)], minlength=codes.max() + 1)
    total = np.bincount(codes[: len(known)], weights=label[::2], minlength=codes.max() + 1)
    prior = float(label[::2].mean())
    mean = (total + prior) / (count + 1)
    return mean[codes[len(known) :]], label[1::2]


def _pair_areas(values: Floats, label: NDArray[Any]) -> tuple[float, float] | None:
    """Mean over pairs of classes of the AUC, turned to at least .5, and its lower bound (Hand and Till 2001)."""
    classes, counts = np.unique(label, return_counts=True)
    classes = classes[counts > 1]
    pairs = [(a, b) for i, a in enumerate(classes.tolist()) for b in classes[i + 1 :].tolist()]
    if not pairs:
        return None
    if len(pairs) > _PAIRS:
        pairs = [pairs[i] for i in np.linspace(0, len(pairs) - 1, _PAIRS).round().astype(int).tolist()]
    areas, errors = [], []
    for a, b in pairs:
        here = (label == a) | (label == b)
        one = area(values[here], label[here] == b)
        areas.append(max(one.value, 1 - one.value))
        errors.append(one.error if one.error > 0 else 1 / (1 + min(int((label == a).sum()), int((label == b).sum()))))
    value = float(np.mean(areas))
    return value, value - 1.645 * float(np.mean(errors))


def _rank_correlation(values: Floats, label: NDArray[Any]) -> tuple[float, float] | None:
    """|Spearman's correlation| and its lower bound by Fisher's transformation."""
    first, second = middle_ranks(values), middle_ranks(label.astype(np.float64))
    if first.std() == 0 or second.std() == 0:
        return None
    value = min(abs(float(np.corrcoef(first, second)[0, 1])), 1.0)
    bound = np.tanh(np.arctanh(min(value, 1 - 1e-12)) - 1.645 / np.sqrt(len(values) - 3))
    return value, float(bound)
