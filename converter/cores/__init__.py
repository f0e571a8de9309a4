"""A model as plain arrays: what every writer of graphs (ONNX, TFLite, C) reads, whatever library fitted it.

`core_of(package)` in `reading.py` makes it of any scikit-learn model that a package holds. A core takes cleaned float32 rows; the cleaning
steps stand in front of it in every graph. Networks of Keras and imported graphs have no core: they are converted from their own files.

Read next: `core.py`, the form itself.
"""

from converter.cores.core import Core, Dense, Distance, Kernel, Layers, Link, Trees, Votes

__all__ = ["Core", "Dense", "Distance", "Kernel", "Layers", "Link", "Trees", "Votes"]
