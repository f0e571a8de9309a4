"""The cameras of the demo: a thread that appends freshly drawn scans to one NDJSON file per device."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path

from examples.digits import scans

PERIOD_S = 0.25


class Sensors:
    """Draws `rows_per_second` scans for each device from that device's own scans, in its present situation."""

    def __init__(self, files: Mapping[str, Path], seed: int, rows_per_second: int = 72) -> None:
        self._files, self._seed = dict(files), seed
        self._batch = max(1, round(rows_per_second * PERIOD_S))
        self._situation = dict.fromkeys(files, "normal")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sensors", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        for path in self._files.values():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        self._thread.start()

    def set_situation(self, device_id: str, situation: str) -> None:
        """From the next batch on the device's camera sees this situation."""
        self._situation[device_id] = situation

    def stop(self) -> None:
        """Stop writing and wait for the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        round_number = 0
        while not self._stop.wait(PERIOD_S):
            round_number += 1
            for index, (device_id, path) in enumerate(self._files.items()):
                drawn, _ = scans.traffic(
                    seed=self._seed * 1_000_003 + round_number,
                    device_index=index,
                    devices=len(self._files),
                    rows=self._batch,
                    situation=self._situation[device_id],
                )
                lines = "".join(json.dumps([round(float(v), 2) for v in row]) + "\n" for row in drawn)
                with path.open("a") as stream:
                    stream.write(lines)
