"""What the trainer's reference says of images comes to the device by way of the bundle."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from converter import convert
from device_agent import Scorer
from edgefleet.package import write_package
from edgefleet.reference import build_reference
from edgefleet.statistics import InputStatistics
from edgefleet.summaries import Summaries
from tests.unit.converter.converter_packages import candidate_package

SHAPE = [17, 17]


@pytest.mark.conversions
def test_a_bundle_of_images_names_the_summaries_that_its_devices_count(tmp_path: Path) -> None:
    table = candidate_package(tmp_path / "table", "logistic", "classification", features=17 * 17)
    x = table.rows("parity").x
    reference = build_reference(x, table.inputs(), block_rows=20, classes=2, shape=SHAPE).to_bytes()
    files = {name: table.read(name) for name in table.index.files} | {"reference.npz": reference}
    package = write_package(tmp_path / "package", msgspec.structs.replace(table.index, files={}, shape=SHAPE), files)

    bundle = convert(package, ["onnx-fp32"], tmp_path / "bundle")

    with Scorer.open(bundle) as scorer:
        scorer.score_batch(x[:100])
        window = scorer.take_window()
    assert bundle.manifest.statistics == Summaries(SHAPE).names
    assert window is not None
    counts = InputStatistics.from_bytes(window.body.statistics).counts
    assert (counts.shape[0], np.unique(counts.sum(axis=1)).tolist()) == (len(bundle.manifest.statistics), [100])
