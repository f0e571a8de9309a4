"""Models made elsewhere become model packages: an MLflow model directory, or a .skops, .onnx, .tflite or .keras file, with a data sample.

Nothing is unpickled. A foreign file is opened first in a child process with limits on time and memory; ONNX and TFLite files are only ever
run there. The model's file is not changed: `signature.json` in the package says how it is called. Read `importing.py` next.
"""
