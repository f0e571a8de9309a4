"""Float graphs made smaller: half precision for ONNX, integers for ONNX and TFLite, always with a float32 interface. Needs no TensorFlow.

Only layers with weights that the margin depends on become integer: matrix products, convolutions and, in TFLite, the poolings between
them. Cleaning steps, softmax and calibrators stay float in the same file; trees are never touched.

Read next: `make.py`, the writer of every target; `calibration.py`, which rows the ranges come from; `mixed.py`, which layers suffer.
"""
