"""A worker of a search in a process of its own, for tests that kill it: `python search_worker.py STORAGE TRIALS [HOLD]`.

At its trial number HOLD (the how-many-th of its own, from 1) it prints `holding` and waits for a line on its input, in the middle of the
trial. At the end it prints the result as JSON.
"""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.candidates import Predict, Problem
from trainer.search import SearchResult, search
from trainer.settings import Search

PROBLEM = Problem(task="classification", classes=2, shape=(4,), seed=2)


def rows() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """300 rows whose answer is a product of two inputs, up to noise."""
    rng = np.random.default_rng(5)
    z = rng.normal(size=(300, 4)).astype(np.float32)
    return z, (z[:, 0] * z[:, 1] + z[:, 2] + rng.normal(0, 0.5, 300) > 0).astype(np.int64)


def run(storage: str, trials: int, hold: int = 0, **more: Any) -> SearchResult:
    """Search a small tree, alone or with others."""
    z, label = rows()
    seen = 0

    def score(predict: Predict) -> float:
        nonlocal seen
        seen += 1
        if seen == hold:
            sys.stdout.write("holding\n")
            sys.stdout.flush()
            sys.stdin.readline()
        probabilities = predict(z[200:])
        return float(-np.log(np.maximum(probabilities[np.arange(100), label[200:]], 1e-6)).mean())

    settings = Search(candidates=["tree"], seed=11, trials=trials, **more)
    return search("tree", (z[:200], label[:200], None), (z[200:], label[200:]), PROBLEM, settings, score, False, storage, "tree")


if __name__ == "__main__":
    sys.stdout.write(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0).to_json().decode() + "\n")
