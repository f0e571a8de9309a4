"""Project folders over public data sets, for `python -m benchmarks.datasets`; the data are not part of edgefleet."""
