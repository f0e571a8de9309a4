"""The form of every benchmark's result: figures with a limit, as a table or as one JSON document."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Figure:
    """One measured number; `limit` is its largest good value, None when it only informs; `n` counts the measurements behind it."""

    name: str
    value: float
    unit: str
    limit: float | None
    n: int

    @property
    def ok(self) -> bool:
        """Whether the value keeps its limit."""
        return self.limit is None or self.value <= self.limit


def show(figures: list[Figure], as_json: bool) -> None:
    """Print to stdout, for people or for machines."""
    if as_json:
        print(json.dumps({"figures": [{**asdict(f), "ok": f.ok} for f in figures]}, allow_nan=False))
        return
    width = max(len(f.name) for f in figures)
    print(f"{'figure':{width}}  {'value':>9}  {'unit':6}  {'limit':>6}  {'n':>6}")
    for f in figures:
        limit = "-" if f.limit is None else f"{f.limit:g}"
        print(f"{f.name:{width}}  {f.value:9.3f}  {f.unit:6}  {limit:>6}  {f.n:6d}{'' if f.ok else '  over the limit'}")
