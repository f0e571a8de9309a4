"""Turns a model package into a bundle: one graph per target, each proven on the device's own scorer.

What it does: converts (`to_onnx/`, `to_tflite/`, `quantize/`), compiles the explainer (`explain/`), runs every variant in a process of its
own with the scorer that devices run (`parity.py`), judges it (`gates.py`) and writes the bundle (`write.py`).
What it refuses: a variant outside its gates, and a conversion that is known to be silently wrong.
It never imports TensorFlow in the calling process, and never unpickles.

Read next: `conversion.py`, the whole way in one function.
"""

from converter.conversion import Conversion, VariantReport, Wishes, convert, convert_with_report
from converter.gates import Limits
from converter.recipes import possible

__all__ = ["Conversion", "Limits", "VariantReport", "Wishes", "convert", "convert_with_report", "possible"]
