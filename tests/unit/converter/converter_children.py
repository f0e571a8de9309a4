"""Work with TensorFlow for the converter's tests, in a child: it warns when imported, and its threads would stay for all other tests."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def in_child(arguments: list[str], timeout_s: float = 280) -> str:
    """Run `python ARGUMENTS` as `edgefleet.isolate` runs children, and return what it printed last."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONHASHSEED": "0"}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=timeout_s, env={**os.environ, **quiet})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


def call_all(function: str, jobs: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Call `module:function` for each job in one child; an error of ours becomes {"refused": its text}."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "jobs.json").write_text(json.dumps(jobs))
    in_child(["-m", "tests.unit.converter.converter_children", function, str(folder)])
    answers: list[dict[str, Any]] = json.loads((folder / "answers.json").read_text())
    return answers


def lite(graph: bytes, x: NDArray[np.float32], *, singly: bool = False) -> dict[str, NDArray[np.float32]]:
    """Answers of a TFLite file by the names of its signature; a file that takes one row at a time is given one."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=graph, num_threads=1)
    (given,) = interpreter.get_input_details()
    assert (given["dtype"], interpreter.get_signature_list()["serving_default"]["inputs"]) == (np.float32, ["inputs"])
    size = 1 if singly or given["shape_signature"][0] == 1 else len(x)
    if size > 1:
        interpreter.resize_tensor_input(given["index"], [size, *x.shape[1:]])
    interpreter.allocate_tensors()
    outputs = interpreter.get_signature_runner("serving_default").get_output_details()
    parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in outputs}
    for at in range(0, len(x), size):
        interpreter.set_tensor(given["index"], x[at : at + size])
        interpreter.invoke()
        for name, details in outputs.items():
            parts[name].append(np.array(interpreter.get_tensor(details["index"])))
    return {name: np.concatenate(values) for name, values in parts.items()}


def main(function: str, folder: Path) -> None:
    from importlib import import_module

    from edgefleet.errors import EdgefleetError

    module, _, name = function.partition(":")
    answers = []
    for job in json.loads((folder / "jobs.json").read_text()):
        try:
            answers.append(getattr(import_module(module), name)(job))
        except EdgefleetError as err:
            answers.append({"refused": str(err)})
    (folder / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
