"""Models to float TFLite files; integer files are made from them by `quantize/`.

Everything with TensorFlow runs in a child process, in functions that `make.py` calls: a core of scikit-learn (`core.py`, `trees.py`,
`sets.py`) or a Keras model (`keras.py`, `meanings.py`) becomes one function of raw rows, cleaning (`steps.py`) and calibrator
(`probabilities.py`) included, and that function a file (`graph.py`). `flat.py` and `half.py` work on finished files and need no TensorFlow.
What LiteRT has no operator for is refused by name.

Read next: `make.py`.
"""
