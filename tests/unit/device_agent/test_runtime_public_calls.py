"""Where a runtime has its inner calls elsewhere, the public ones give the same answers; and `session` stays of use to others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agent import Scorer
from device_agent.ring import Ring
from device_agent.runtime import Session, open_runtime
from tests.unit.device_agent.bundles import FEATURES, logistic_graph, regression_graph, training_rows


class PublicOnly:
    """The real runtime object, without anything that is not public."""

    def __init__(self, real: Any) -> None:
        for name in dir(real):
            if not name.startswith("_"):
                setattr(self, name, getattr(real, name))


def answers_of(session: Session, rows: np.ndarray[Any, np.dtype[np.float32]]) -> list[list[float]]:
    ring = Ring(session, 8)
    found = []
    for row in rows:
        ring.rows[3] = row
        ring.runs[3]()
        found.append(ring.answers[3].tolist())
    return found


@pytest.mark.parametrize("columns", [0, 1, 3])
def test_onnxruntime_answers_the_same_through_its_public_calls(columns: int) -> None:
    x, _ = training_rows()
    weights = np.random.default_rng(1).normal(size=(FEATURES, max(columns, 1))).astype(np.float32)
    graph = logistic_graph(weights, weights[0]) if columns else regression_graph(weights[:, 0])
    session = open_runtime("onnxruntime", graph)
    quick = answers_of(session, x[:20])
    session.raw = PublicOnly(session.raw)
    assert answers_of(session, x[:20]) == quick
    assert len({tuple(answer) for answer in quick}) == 20


@pytest.mark.keras
@pytest.mark.slow
def test_litert_answers_the_same_through_its_public_calls_and_can_be_called_by_others(tmp_path: Path) -> None:
    from benchmarks.scorer_graphs import FEATURES as WIDTH
    from benchmarks.scorer_graphs import lite_network_graph, write_bundle

    x = np.random.default_rng(0).normal(size=(256, WIDTH)).astype(np.float32)
    graph = lite_network_graph((8,))
    session = open_runtime("litert", graph)
    quick = answers_of(session, x[:20])
    session.raw.invoke()  # refuses to run while somebody holds what is inside
    session.raw = PublicOnly(session.raw)
    assert answers_of(session, x[:20]) == quick
    assert len({tuple(answer) for answer in quick}) == 20
    with Scorer.open(write_bundle(tmp_path / "b", graph, x, runtime="litert")) as scorer:
        expected = scorer.score(x[0]).margin
        scorer.session.invoke()
        assert scorer.score(x[0]).margin == expected
