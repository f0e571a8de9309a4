"""Models to ONNX graphs with one input `inputs` [n, F] and the outputs `margin` and `probabilities`.

`forest.py` and `boosting.py` for trees, `keras.py` for networks. Refuses what is known to convert wrongly in silence.
Read next: `forest.py`.
"""
