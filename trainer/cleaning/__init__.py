"""Declared cleaning, fitted on the training rows and traced once to the list of exact primitives of `edgefleet.steps`.

What cannot be compiled is refused in one sentence before anything is trained. Not offered, because the answer must be a function of the
last rows only and equal in every runtime: running averages without end, sorting inside a window, text inside the graph.

Read next: `plan.py` (which step meets which column, and what is refused), then `compiler.py`.
"""

from trainer.cleaning.compiler import compile_steps
from trainer.cleaning.plan import refusals
from trainer.cleaning.spacing import float32_warnings

__all__ = ["compile_steps", "float32_warnings", "refusals"]
