"""Graphs made elsewhere: a package whose model is an `.onnx` or `.tflite` file becomes a bundle with that graph inside, wrapped.

What stands in front of and behind the graph is ours (rows into its tensor, integers at its ends, its output into `margin` and
`probabilities`, the calibrator); its own operators stay as they are. What no device could run, or what would answer something else there,
is refused by name (`onnx_file.py`, `tflite_file.py`). No graph is turned into the other format.

Read next: `looking.py`, what a package may become; then `onnx_graph.py` and `tflite_graph.py`.
"""
