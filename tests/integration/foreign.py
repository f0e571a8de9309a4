"""Programs that are not ours, each in a virtual environment of its own, because their pins collide with ours and with each other's.

EDGEFLEET_FOREIGN names the folder that keeps the environments from run to run; without it they live as long as the tests' temporary folder.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgefleet.ports import free_port

MLFLOW = ("mlflow==3.17.2", "onnx==1.23.2", "onnxruntime==1.32.0")
KFP = ("kfp==2.17.0",)
_INSTALL_S = 1500
_START_S = 120


def environment(fallback: Path, *requirements: str) -> Path:
    """The python of an environment that holds `requirements`, made when it is not there yet.

    Args:
        fallback: Where to make it when EDGEFLEET_FOREIGN is not set.
        requirements: Exact pins; the first one names the environment.
    """
    root = Path(os.environ.get("EDGEFLEET_FOREIGN") or fallback)
    folder = root / requirements[0].replace("==", "-")
    python, stamp, wanted = folder / "bin" / "python", folder / "edgefleet-stamp", "\n".join(requirements)
    root.mkdir(parents=True, exist_ok=True)
    with (root / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test processes may want the same one
        if not stamp.is_file() or stamp.read_text() != wanted:
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True, timeout=120)
            command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S)
            if done.returncode != 0:
                reason = f"{requirements[0]} could not be installed: {done.stderr.strip()[-300:]}"
                if os.environ.get("CI"):
                    pytest.fail(f"{reason}; in CI nothing is skipped for a missing part")
                pytest.skip(reason)
            stamp.write_text(wanted)
    return python


def run(python: Path, program: str, *arguments: str, env: dict[str, str] | None = None, timeout_s: float = 240) -> str:
    """What `program` prints in that environment; nothing of ours is importable there."""
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(python), "-I", "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**kept, "PATH": path, **(env or {})},
        cwd=python.parent,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@contextmanager
def mlflow_server(python: Path, folder: Path, port: int | None = None) -> Iterator[str]:
    """A real MLflow server on a port of this machine (a free one when none is named), its state in `folder`; yields its address."""
    port = free_port() if port is None else port
    url = f"http://127.0.0.1:{port}"
    command = [str(python), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts")]
    # The server starts uvicorn by name: its environment's programs come first.
    env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=env, start_new_session=True)
    try:
        wait_for(f"{url}/health", process, folder / "server.log")
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # its own session: the server and its workers, nobody else
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=60)


def wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a server of others answers 200 there."""
    deadline = time.monotonic() + _START_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # our own loopback address
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline, f"no answer after {_START_S} s: {log.read_text()[-2000:]}"
        time.sleep(0.2)  # a real server of others has no signal that it is ready
