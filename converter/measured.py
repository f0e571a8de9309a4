"""What every measurement of a variant does alike, whatever runs it: rows in, answers out, costs. Next: `parity.py`, `to_c/running.py`."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefleet.package import npz_bytes, read_npz


def row_sets(job: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    """The rows of a job's `rows` {name: path of an .npz with x}."""
    return {name: read_npz(Path(path).read_bytes(), ("x",), name)["x"] for name, path in job["rows"].items()}


def answers_file(job: dict[str, Any], rows: str, single: NDArray[np.float64], batch: NDArray[np.float64]) -> str:
    """Path of a file in the job's `folder` with the answers to one row set, each row alone and in batches."""
    path = Path(job["folder"]) / f"{job['variant']}-{rows}.npz"
    path.write_bytes(npz_bytes({"single": single, "batch": batch}))
    return str(path)


def costs(latency_ms: NDArray[np.float64], batch_row_ms: float, cold_start_ms: float, memory_peak_bytes: int) -> dict[str, Any]:
    """Fields of `converter.parity.Cost`, without the explanation's; `latency_ms` [n] of single rows."""
    p50, p95, p99 = (float(np.quantile(latency_ms, q)) for q in (0.5, 0.95, 0.99))
    return {
        "latency_p50_ms": p50,
        "latency_p95_ms": p95,
        "latency_p99_ms": p99,
        "batch_row_ms": batch_row_ms,
        "cold_start_ms": cold_start_ms,
        "memory_peak_bytes": memory_peak_bytes,
    }
