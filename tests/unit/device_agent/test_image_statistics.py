"""A device counts the summaries of images, and its windows stay small whatever the size of the image."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from device_agent import Scorer
from edgefleet.errors import ArtifactError
from edgefleet.manifest import Input, manifest_bytes, parse_manifest
from edgefleet.messages import encode
from edgefleet.reference import build_reference
from edgefleet.statistics import InputStatistics
from tests.unit.device_agent.bundles import logistic_graph, write_bundle

SHAPE = (32, 32, 3)
WIDTH = 3072


def images(n: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    inputs = [Input(name=f"p{i}") for i in range(WIDTH)]
    reference = build_reference(images(500), inputs, block_rows=50, classes=2, shape=SHAPE)
    assert reference.summaries is not None
    changes = {"shape": list(SHAPE), "statistics": reference.summaries.names}
    weights = np.full((WIDTH, 1), 0.01, np.float32)
    graph = logistic_graph(weights, np.zeros(1, np.float32))
    return write_bundle(tmp_path_factory.mktemp("b"), graph, images(8), inputs, ["no", "yes"], changes=changes, reference=reference).folder


def test_a_window_of_images_has_a_few_kilobytes(bundle: Path) -> None:
    x = images(300, 1)
    with Scorer.open(bundle) as scorer:
        for row in x[:40]:
            scorer.score(row)
        scorer.score_batch(x[40:])
        window = scorer.take_window()
        reference = build_reference(images(500), scorer.bundle.manifest.inputs, block_rows=50, classes=2, shape=SHAPE)
    assert window is not None
    assert len(encode(window.body)) < 6_500
    counted, whole = InputStatistics.from_bytes(window.body.statistics), InputStatistics.empty(reference)
    whole.update(x, reference)
    assert (counted.rows, counted.counts.shape[0]) == (300, 69)
    assert np.array_equal(counted.counts, whole.counts)


def test_statistics_of_other_things_than_the_manifest_names_are_refused(bundle: Path, tmp_path: Path) -> None:
    for file in bundle.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    manifest = parse_manifest((bundle / "manifest.json").read_bytes())
    (tmp_path / "manifest.json").write_bytes(manifest_bytes(msgspec.structs.replace(manifest, statistics=[])))

    with pytest.raises(ArtifactError, match="69 features of 3072 columns, the manifest 3072 of 3072 inputs"):
        Scorer.open(tmp_path)
