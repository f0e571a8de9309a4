"""What edgefleet costs, measured: one module per area, each `python -m benchmarks.NAME [--json]`.

A table for people, or one JSON document `{"figures": [{"name", "value", "unit", "limit", "ok", "n"}]}`. Figures are never part of the
tests' verdict: they depend on the machine and on what else it does. Ratios of interleaved rounds travel better than microseconds.
"""
