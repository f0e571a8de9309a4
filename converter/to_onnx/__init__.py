"""Models to ONNX graphs with one input `inputs` [n, F] and the outputs `margin` and, for classifiers, `probabilities`.

`make.py` is what a child process is asked. scikit-learn's models come as cores (`core.py`, `trees.py`, `probabilities.py`), written node by
node from their arrays; networks through tf2onnx (`keras.py`); imported pipelines that have no core through skl2onnx (`foreign.py`), whose
known silent errors are refused by name or repaired. Read next: `core.py`.
"""
