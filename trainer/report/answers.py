"""How the winner answers: metrics, slices, calibration, errors, importance, robustness."""

from collections.abc import Sequence

from edgefleet.report.bars import bars, histogram
from edgefleet.report.heat import heat
from edgefleet.report.lines import Line, lines
from edgefleet.report.markup import EMPTY, Html, join
from edgefleet.report.numbers import ABSENT, between, number, percent
from edgefleet.report.parts import beside, chip, grid, note, pairs, paragraph, table
from edgefleet.report.points import Dot, Points, intervals, scatter
from trainer.report.record import CalibrationNote, Measure, RunRecord, in_order

_MOST_SLICES = 30
_MOST_INPUTS = 8
_OFF = "predicted minus actual"


def metrics(record: RunRecord) -> Html:
    """Every metric with its 95 % interval, validation beside test."""
    splits = [split for split in in_order(record.metrics) if record.metrics[split]]
    if not splits:
        return EMPTY
    names = list(dict.fromkeys(name for split in splits for name in record.metrics[split]))
    rows = [(name, *(cell for split in splits for cell in _measured(record.metrics[split].get(name)))) for name in names]
    header = ("Metric", *(title for split in splits for title in (f"{split}", "95 % interval", "n")))
    shares = [Dot(f"{name}, {split}", m.value, m.low, m.high)
              for name in names for split in splits if (m := record.metrics[split].get(name)) and _is_share(m)]  # fmt: skip
    chart = intervals("Metrics between 0 and 1", shares[:24], "95 % interval") if shares else EMPTY
    once = note("Test rows are looked at once a package.") if "test" in splits else EMPTY
    return join(beside(table(header, rows, numbers=range(1, len(header))), chart), once)


def _measured(measure: Measure | None) -> tuple[object, ...]:
    if measure is None:
        return None, ABSENT, None
    return measure.value, between(measure.low, measure.high), measure.n or None


def _is_share(measure: Measure) -> bool:
    ends = [end for end in (measure.value, measure.low, measure.high) if end is not None]
    return measure.value is not None and all(0 <= end <= 1 for end in ends)


def slices(record: RunRecord) -> Html:
    """Slices from the worst on, against the whole."""
    if not record.slices:
        return EMPTY
    shown = record.slices[:_MOST_SLICES]
    names = [f"{part.column} = {part.name}" if part.column else part.name for part in shown]
    named = list(zip(names, shown, strict=True))
    dots = [Dot(name, part.value, part.low, part.high, f"n = {number(part.n)}", bad=part.verdict == "fail") for name, part in named]
    judged = any(part.verdict for part in shown)
    what = "Mean absolute error" if record.task in ("regression", "rul") else "Accuracy"
    rows = [((chip(part.verdict),) if judged else ()) + (name, part.value, between(part.low, part.high), part.n) for name, part in named]
    more = note(f"{len(record.slices) - len(shown)} further slices are not shown.") if len(record.slices) > len(shown) else EMPTY
    first = ("Verdict",) if judged else ()
    listed = table((*first, "Slice", what, "95 % interval", "n"), rows, numbers=range(len(first) + 1, len(first) + 4))
    chart = intervals("Slices", dots, f"{what.lower()}, 95 % interval")
    return join(_rows_note(record), beside(listed, chart), more)


def _rows_note(record: RunRecord) -> Html:
    return note(f"On {record.evaluated_on} rows.") if record.evaluated_on else EMPTY


def calibration(record: RunRecord) -> Html:
    """The reliability curve with intervals: where probabilities promise too much or too little."""
    told = record.calibration
    if told is None or (not told.bins and told.z is None):
        return EMPTY
    figures = pairs(
        [
            ("Expected calibration error", told.ece),
            ("Spiegelhalter's z", f"{number(told.z)}: {_surprise(told.z)}" if told.z is not None else None),
            ("Slope (1 is right)", told.slope),
            ("Intercept (0 is right)", told.intercept),
        ]
    )
    return join(_rows_note(record), grid(_reliability(told), figures))


def _surprise(z: float) -> str:
    if abs(z) <= 1.96:
        return "within 1.96: by this measure these rows are no proof against the probabilities"
    return "beyond 1.96: the probabilities are not calibrated"


def _reliability(told: CalibrationNote) -> Html:
    used = [part for part in told.bins if part.n and part.confidence is not None and part.share is not None]
    if not used:
        return paragraph("No bin has rows.")
    band = all(part.share_low is not None and part.share_high is not None for part in used)
    line = Line(
        "share that came true",
        [part.confidence or 0.0 for part in used],
        [part.share or 0.0 for part in used],
        [part.share_low or 0.0 for part in used] if band else (),
        [part.share_high or 0.0 for part in used] if band else (),
        dots=True,
    )
    return lines("Reliability", [line], "probability answered", "share that came true", x_limits=(0, 1), y_limits=(0, 1), diagonal=True)


def threshold(record: RunRecord) -> Html:
    """The mean cost by threshold and the threshold taken."""
    told = record.threshold
    if told is None or told.value is None:
        return EMPTY
    tables = [(true, by) for true, by in told.costs.items() if isinstance(by, dict)]
    costs = [(f"{true} answered as {answered}", cost) for true, by in tables for answered, cost in by.items()]
    costs += [(str(name).replace("_", " "), cost) for name, cost in told.costs.items() if not isinstance(cost, dict)]
    said = pairs([("Threshold", told.value), *((f"Cost: {name}", cost) for name, cost in costs)])
    curve = sorted((t, cost) for t, cost in told.curve if cost is not None)
    if len(curve) < 2:
        return said
    line = Line("mean cost", [t for t, _ in curve], [cost for _, cost in curve])
    marks = [(told.value, f"taken: {number(told.value)}")]
    return grid(lines("Mean cost by threshold", [line], "threshold", "cost a row, validation rows", marks=marks), said)


def confusion(record: RunRecord) -> Html:
    """Counts by true and answered class, shaded by the true class's share."""
    told = record.confusion
    if told is None or not told.counts:
        return EMPTY
    shades = [[count / (sum(row) or 1) for count in row] for row in told.counts]
    right = sum(row[i] for i, row in enumerate(told.counts) if i < len(row))
    says = f"{number(right)} of {number(sum(map(sum, told.counts)))} rows are answered right."
    values = [[float(count) for count in row] for row in told.counts]
    names = told.classes
    chart = heat("Confusion", names, names, values, shades=shades, row_label="true class", column_label="answered class", says=says)
    found = [(name, percent(shades[i][i]), sum(told.counts[i]), sum(row[i] for row in told.counts)) for i, name in enumerate(names)]
    listed = table(("Class", "Found", "True rows", "Answered rows"), found, numbers=(1, 2, 3))
    lead = note(f"{says} Cells are shaded by the share of the true class.")
    # Many classes need the page's whole width.
    return join(_rows_note(record), lead, *((chart, listed) if len(told.classes) > 12 else (grid(chart, listed),)))


def residuals(record: RunRecord) -> Html:
    """Predicted against actual, errors against predictions, and their distribution."""
    told = record.residuals
    if told is None:
        return EMPTY
    known = [(p, a) for p, a in zip(told.predicted, told.actual, strict=False) if p is not None and a is not None]
    if not known:
        return EMPTY
    predicted, actual = [p for p, _ in known], [a for _, a in known]
    off = [p - a for p, a in known]
    charts = [
        scatter("Predicted against actual", [Points("rows", actual, predicted)], "actual", "predicted", diagonal=True),
        scatter("Error against prediction", [Points("rows", predicted, off)], "predicted", _OFF, level=0.0),
        _spread(off),
    ]
    return join(note(f"A sample of {len(off)} {record.evaluated_on} rows."), grid(*charts, small=True))


def _spread(off: Sequence[float]) -> Html:
    low, high, count = min(off), max(off), 25
    if high <= low:
        return paragraph(f"Every error is {number(low)}.")
    width = (high - low) / count
    shares = [0.0] * count
    for value in off:
        shares[min(count - 1, int((value - low) / width))] += 1 / len(off)
    return histogram("Errors", [low + width * i for i in range(count + 1)], [("rows", shares)], _OFF)


def curve(record: RunRecord) -> Html:
    """What the fit saw, epoch by epoch."""
    names = list(dict.fromkeys(name for point in record.curves for name in point if name != "step"))
    series = []
    for name in names:
        points = [(point.get("step") or float(i), point.get(name)) for i, point in enumerate(record.curves, 1)]
        known = [(step, value) for step, value in points if value is not None]
        if len(known) > 1:
            title = {"loss": "loss, training", "validation": "loss, validation"}.get(name, name)
            series.append(Line(title, [step for step, _ in known], [value for _, value in known]))
    if not series:
        return EMPTY
    losses = [line for line in series if line.name.startswith("loss")]
    others = [lines(line.name, [line], "step", line.name) for line in series if line not in losses]
    return grid(*([lines("Loss", losses, "step", "loss")] if losses else []), *others[:5])


def errors(record: RunRecord) -> Html:
    """The worst rows with the inputs that a person can look at."""
    if not record.errors:
        return EMPTY
    top = [item.name for item in record.importance]
    names = list(dict.fromkeys(name for row in record.errors for name in row.inputs))
    shown = sorted(names, key=lambda name: top.index(name) if name in top else len(top))[:_MOST_INPUTS]
    rows = [(row.row_id, row.label, row.answer, row.score, *(_input(row.inputs.get(name)) for name in shown)) for row in record.errors]
    hidden = f" Of {len(names)} inputs the {len(shown)} most important are shown." if len(names) > len(shown) else ""
    lead = note(f"The {len(rows)} worst answers on {record.evaluated_on} rows, worst first.{hidden}")
    return join(lead, table(("Row", "True", "Answered", "Score", *shown), rows, numbers=(3,)))


def _input(value: object) -> object:
    return "missing" if value is None or value != value else value


def importance(record: RunRecord) -> Html:
    """Which inputs the answers rest on."""
    if not record.importance:
        return EMPTY
    known = [(item.name, item.share, item.low, item.high) for item in record.importance if item.share is not None]
    shown = sorted(known, key=lambda item: -item[1])[:25]
    rest = len(known) - len(shown)
    more = note(f"{rest} further inputs are smaller.") if rest else EMPTY
    return join(grid(bars("Importance", shown, "share")), more)


def robustness(record: RunRecord) -> Html:
    """The metric when inputs are disturbed; the bound of the drop is one-sided, 95 %."""
    if not record.robustness:
        return EMPTY
    rows = [(chip(item.verdict), item.kind, item.value, item.drop, item.upper, item.limit) for item in record.robustness]
    header = ("Verdict", "Disturbance", record.metric or "metric", "Drop", "Drop at most (95 %)", "Limit")
    return table(header, rows, numbers=(2, 3, 4, 5))
