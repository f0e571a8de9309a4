"""Prometheus' text form 0.0.4 of the door's counters, the running model and this process."""

from collections.abc import Iterator
from typing import Final

from device_agent.doors.http.counters import BUCKETS, Counts
from device_agent.scorer import Scorer
from device_agent.telemetry.selfwatch import own_cost

METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"


def metrics_text(counts: Counts, scorer: Scorer | None, version: str) -> str:
    """All metrics; a counter begins at the start of the door."""
    return "".join(f"{line}\n" for line in _lines(counts, scorer, version))


def _lines(counts: Counts, scorer: Scorer | None, version: str) -> Iterator[str]:
    for name, value, told in (
        ("offered", counts.offered, "Rows that came through the HTTP door; a request whose rows cannot be told is one"),
        ("scored", counts.scored, "Rows answered"),
        ("shed", counts.shed, "Rows not looked at because of overload or time"),
    ):
        yield from _head(f"edgefleet_http_rows_{name}_total", "counter", told)
        yield f"edgefleet_http_rows_{name}_total {value}"
    yield from _head("edgefleet_http_rows_rejected_total", "counter", "Rows refused, by reason")
    for reason, count in sorted(counts.rejected.items()):
        yield f'edgefleet_http_rows_rejected_total{{reason="{_escaped(reason)}"}} {count}'
    yield from _head("edgefleet_http_requests_total", "counter", "Requests by route and status")
    for (route, status), count in sorted(counts.requests.items()):
        yield f'edgefleet_http_requests_total{{route="{_escaped(route)}",status="{status}"}} {count}'
    yield from _latency(counts)
    yield from _head("edgefleet_model_info", "gauge", "The model that answers, 1 while it does")
    if scorer is not None:
        labels = {
            "project": scorer.bundle.manifest.project,
            "version": version,
            "variant": scorer.variant.name,
            "runtime": scorer.variant.runtime,
            "bundle_digest": scorer.bundle.digest,
            "model_digest": scorer.digest,
        }
        yield "edgefleet_model_info{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "} 1"
    cost = own_cost()
    yield from _head("process_resident_memory_bytes", "gauge", "Resident memory")
    yield f"process_resident_memory_bytes {cost.rss_bytes}"
    yield from _head("process_cpu_seconds_total", "counter", "User and system time")
    yield f"process_cpu_seconds_total {cost.cpu_s:.6f}"


def _latency(counts: Counts) -> Iterator[str]:
    name = "edgefleet_http_request_seconds"
    yield from _head(name, "histogram", "Time of requests that bring rows, without the network")
    total = 0
    for bound, count in zip(BUCKETS, counts.latency, strict=False):
        total += count
        yield f'{name}_bucket{{le="{bound:g}"}} {total}'
    total += counts.latency[-1]
    yield f'{name}_bucket{{le="+Inf"}} {total}'
    yield f"{name}_sum {counts.latency_s:.9f}"
    yield f"{name}_count {total}"


def _head(name: str, kind: str, told: str) -> Iterator[str]:
    yield f"# HELP {name} {told}"
    yield f"# TYPE {name} {kind}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
