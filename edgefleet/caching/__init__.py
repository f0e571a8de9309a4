"""Steps that need not run again: outcomes kept by the digest of the code they reach, their inputs and the versions of their libraries.

The trainer keeps its steps in the project's folder, the converter its graphs in the user's cache folder. Read `cache.py` next.
"""

from edgefleet.caching.cache import StepCache, StepResult

__all__ = ["StepCache", "StepResult"]
