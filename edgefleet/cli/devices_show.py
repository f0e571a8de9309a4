"""One device for people: the same numbers as on its page, each with its unit and its age."""

from datetime import datetime

from edgefleet.client import Json
from edgefleet.report.table import table

MAX_INPUTS = 10


def print_device(view: Json, now: datetime) -> None:
    """Print what the API says about one device.

    Args:
        view: Answer of GET /devices/<id>.
        now: Aware, for ages.
    """
    device, seen = view["device"], view["observed"]
    print(f"{device['device_id']}: {device['why']}")
    speed = _unit(device["latency_p50_ms"], "ms")
    print(f"heard {age(device['last_seen_at'], now)}, {device['rows_total']:,} rows scored, latency p50 {speed}")
    print(_load(view["load"], now))
    if device["floor"] or device["floor_in_force"]:
        print(_floor(device))
    for pair in seen["shadow"]:
        print(f"\n{_compared(pair)} (heard {age(pair['heard_at'], now)})")
    if seen["shares"]:
        print("\nmodels that share the rows:")
        header = ("release", "share %", "answered", "refused", "mean score", "p50 ms", "heard")
        print(table(header, [_share(arm, now) for arm in seen["shares"]]))
    for view_of in seen["attribution"]:
        _print_attribution(view_of, now)
    print(f"\n{_leaving(view['sampling'], seen)}")
    if not seen["complete"]:
        print(f"Only the newest {seen['windows']:,} windows of the period were added up.")


def age(text: str | None, now: datetime) -> str:
    """How long ago a time of the API was.

    >>> from datetime import UTC
    >>> age("2026-03-01T12:00:00Z", datetime(2026, 3, 1, 12, 1, 30, tzinfo=UTC)), age(None, datetime.now(UTC))
    ('90 s ago', 'never')
    """
    if text is None:
        return "never"
    seconds = max(0, round((now - datetime.fromisoformat(text)).total_seconds()))
    if seconds < 120:
        return f"{seconds} s ago"
    return f"{seconds // 60} min ago" if seconds < 7200 else f"{seconds // 3600} h ago"


def _floor(device: Json) -> str:
    """Which releases it takes.

    >>> _floor({"floor": 0, "floor_attested": 0, "floor_in_force": 2})
    'release floor: it keeps none; it does not yet keep 2, the floor in force'
    """
    kept, signed = device["floor"], device["floor_attested"]
    said = f"it takes no release below {kept} ({'signed' if signed == kept else 'by its word'})" if kept else "it keeps none"
    behind = kept < device["floor_in_force"]
    return f"release floor: {said}" + (f"; it does not yet keep {device['floor_in_force']}, the floor in force" if behind else "")


def _load(load: Json | None, now: datetime) -> str:
    if load is None:
        return "load: not told yet"
    disk = "unknown" if load["disk_free_bytes"] is None else f"{load['disk_free_bytes'] / 1e9:.1f} GB"
    offset = load["clock_offset_ms"]
    clock = "unknown" if offset is None else f"{abs(offset)} ms {'behind' if offset >= 0 else 'ahead'}, set {load['clock_jumps']} times"
    told = f"processor {load['cpu_percent']:g} % of one core, memory {load['rss_bytes'] / 1e6:.0f} MB, disk free {disk}"
    return f"load (told {age(load['heard_at'], now)}): {told}, temperature {_unit(load['temperature_c'], 'C')}, clock {clock}"


def _compared(pair: Json) -> str:
    names = [pair[f"{side}_release"] or pair[f"{side}_digest"][:12] for side in ("shadow", "running")]
    judged = pair["compared"] + pair["shadow_failed"]
    agreed = "no row compared yet" if pair["agreement"] is None else f"same answer for {pair['agreed']:,} of {judged:,} rows"
    mean = (
        ""
        if pair["difference_mean"] is None
        else f", mean score difference {pair['difference_mean']:+.4f} (sd {pair['difference_sd']:.4f})"
    )
    missed = f"{pair['running_failed']} only it, {pair['shadow_failed']} only the running one, {pair['both_failed']} neither"
    offered = f"of {pair['offered']:,} offered {pair['shed']:,} not compared; answered by {missed}"
    took = "" if pair["latency_p95_ms"] is None else f", a row takes it {pair['latency_p95_ms']:.3g} ms at p95"
    return f"release {names[0]} listens beside {names[1]}: {agreed}{mean}{took}; {offered}"


def _share(arm: Json, now: datetime) -> tuple[object, ...]:
    release = arm["release"] or arm["bundle_digest"][:12]
    numbers = (arm["share_percent"], arm["answered"], arm["rejected"], arm["score_mean"], arm["latency_p50_ms"])
    return release, *numbers, age(arm["heard_at"], now)


def _print_attribution(view: Json, now: datetime) -> None:
    release = view["release"] or view["bundle_digest"][:12]
    rows = f"{view['rows']:,} explained rows, {view['skipped']:,} more were due, heard {age(view['heard_at'], now)}"
    print(f"\nwhat the answers of release {release} rested on ({rows}; margin units):")
    lines = [(one["feature"], f"{100 * one['share']:.1f}", one["mean_absolute"], one["mean"]) for one in view["inputs"][:MAX_INPUTS]]
    print(table(("input", "share %", "mean |contribution|", "mean contribution"), lines))
    if len(view["inputs"]) > MAX_INPUTS:
        print(f"{len(view['inputs']) - MAX_INPUTS} inputs with smaller shares are not listed; --json has them.")


def _leaving(order: Json | None, seen: Json) -> str:
    arrived = f"{seen['sampled_rows']:,} rows arrived as they came in"
    if order is None:
        return f"rows that may leave it: none; {arrived}"
    held = ", ".join(order["redact"]) or "no input"
    rate = f"{order['rows_per_hour']:g} an hour until {order['until_at'][:16].replace('T', ' ')} UTC"
    return f"rows that may leave it, if it allows that too: {rate}, {held} held back (by {order['ordered_by']}); {arrived}"


def _unit(value: float | None, unit: str) -> str:
    return "unknown" if value is None else f"{value:g} {unit}"
