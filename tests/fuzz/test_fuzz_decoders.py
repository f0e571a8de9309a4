"""Every decoder of the device before bytes that a coverage-guided fuzzer makes: no crash, no foreign exception, no lost count."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.fuzz.seeds import seeds, write_corpus
from tests.fuzz.targets import TARGETS
from tests.integration import foreign
from tests.unit.device_agent.agent_world import make_bundle, weights

pytestmark = [pytest.mark.foreign, pytest.mark.timeout(1800)]
ROOT = Path(__file__).resolve().parents[2]
ATHERIS = (
    "atheris==3.0.0", "numpy==2.4.6", "msgspec==0.22.0", "cryptography==50.0.2", "paho-mqtt==2.2.0", "click==8.5.1", "onnxruntime==1.32.0",
)  # fmt: skip
SECONDS = int(os.environ.get("EDGEFLEET_FUZZ_SECONDS", "60"))


def test_no_decoder_fails_on_what_a_fuzzer_finds(tmp_path: Path) -> None:
    python = foreign.environment(tmp_path / "foreign", *ATHERIS)
    bundle = make_bundle(tmp_path / "bundle", weights(1))
    (tmp_path / "made").mkdir()
    tflite = (ROOT / "tests" / "faults" / "ends_litert.tflite").read_bytes()
    write_corpus(seeds(bundle, tmp_path / "made", tflite), tmp_path / "corpus")
    counts = tmp_path / "counts.json"
    # A leak or a slow input fails as well: 2 GB, 10 s.
    limits = [f"-max_total_time={SECONDS}", "-timeout=10", "-rss_limit_mb=2048", "-max_len=16384", "-len_control=20", "-seed=1"]
    command = [
        str(python),
        "-m",
        "tests.fuzz.run",
        str(bundle.locate("manifest.json").parent),
        str(counts),
        str(tmp_path / "corpus"),
        *limits,
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}

    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 300, cwd=tmp_path, env=env)

    assert done.returncode == 0, done.stderr[-4000:]
    said = json.loads(counts.read_text())
    assert sum(said["asked"].values()) > 20 * SECONDS
    assert {target for target in TARGETS if said["asked"].get(target, 0) < 5} == set()
    assert {target for target in TARGETS if not said["taken"].get(target)} == set()
