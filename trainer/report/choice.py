"""What was tried and what it costs: candidates against baselines, search, budgets."""

from collections.abc import Sequence

from edgefleet.report.lines import Line, lines
from edgefleet.report.markup import EMPTY, Html, join
from edgefleet.report.numbers import ABSENT, between, duration, number, size
from edgefleet.report.parts import chip, grid, note, table
from edgefleet.report.points import Dot, Points, intervals, scatter
from trainer.limits import LESS_IS_BETTER
from trainer.report.record import CandidateNote, RunRecord, Trial

_MOST_TRIALS = 10


def candidates(record: RunRecord) -> Html:
    """Baselines and candidates on the same validation rows, with intervals."""
    if not record.candidates and not record.baselines:
        return EMPTY
    header = ("Name", record.metric or "metric", "95 % interval", "n", "Beats the baselines", "Gates", "Fit", "Size", "Latency")
    rows: list[tuple[object, ...]] = [
        (f"{base.name} (baseline)", base.value, between(base.low, base.high), base.n or None, "", "", duration(base.seconds), "", "")
        for base in record.baselines
    ]
    rows += [_candidate(candidate, record.winner) for candidate in record.candidates]
    failed = [note(f"{candidate.name}: {candidate.failed}") for candidate in record.candidates if candidate.failed]
    losers = [f"{c.name} does not beat the best baseline." for c in record.candidates if c.baseline_beaten is False]
    beaten = [note(sentence) for sentence in record.remarks or losers]
    dots = [Dot(f"{base.name} (baseline)", base.value, base.low, base.high) for base in record.baselines]
    known = [candidate for candidate in record.candidates if candidate.value is not None]
    dots += [Dot(c.name, c.value, c.low, c.high, "winner" if c.name == record.winner else "") for c in known]
    limit = record.minimum if record.minimum is not None else record.maximum
    words = f"{record.metric or 'metric'} on validation rows, 95 % interval"
    chart = intervals("Candidates and baselines", dots, words, limit=limit, limit_name="criterion")
    return join(table(header, rows, numbers=(1, 2, 3, 6, 7, 8)), *failed, *beaten, grid(chart))


def _candidate(candidate: CandidateNote, winner: str) -> tuple[object, ...]:
    beaten = {True: chip("yes"), False: chip("no"), None: Html(ABSENT)}[candidate.baseline_beaten]
    bad = [gate.gate for gate in candidate.gates if gate.verdict == "fail"]
    unsure = [gate.gate for gate in candidate.gates if gate.verdict == "inconclusive"]
    words = "; ".join(f"{verdict} {', '.join(names)}" for verdict, names in (("fail", bad), ("inconclusive", unsure)) if names)
    name = f"{candidate.name} (winner)" if candidate.name == winner else candidate.name
    latency = duration(candidate.latency_us / 1e6) if candidate.latency_us is not None else ABSENT
    gates = words or ("none stops it" if candidate.gates else ABSENT)
    measured = (candidate.value, between(candidate.low, candidate.high), candidate.n or None)
    return name, *measured, beaten, gates, duration(candidate.seconds), size(candidate.size_bytes), latency


def search(record: RunRecord) -> Html:
    """Trials of each candidate: the best ones, how the best grew, and the Pareto front where cost was an objective."""
    parts = [_trials(name, trials, record) for name, trials in record.trials.items() if trials]
    return join(*parts)


def _trials(candidate: str, trials: Sequence[Trial], record: RunRecord) -> Html:
    less, metric = record.metric in LESS_IS_BETTER, record.metric or "metric"
    done = [trial for trial in trials if trial.value is not None]
    best = sorted(done, key=lambda trial: (trial.value or 0.0) * (1 if less else -1))
    names = list(dict.fromkeys(name for trial in best[:_MOST_TRIALS] for name in trial.parameters))[:8]
    rows = [
        (trial.number, trial.value, duration(trial.seconds), "yes" if trial.pareto else "", *(trial.parameters.get(n, "") for n in names))
        for trial in best[:_MOST_TRIALS]
    ]
    states = ", ".join(f"{sum(trial.state == state for trial in trials)} {state}" for state in sorted({t.state for t in trials if t.state}))
    said = note(f"{candidate}: {len(trials)} trials{f' ({states})' if states else ''}; the best {len(rows)} are listed.")
    listed = table(("Trial", metric, "Time", "Pareto", *names), rows, numbers=(0, 1, 2, *range(4, 4 + len(names))), caption=candidate)
    return join(listed if rows else EMPTY, said, grid(*_trial_charts(candidate, done, less, metric)))


def _trial_charts(candidate: str, done: Sequence[Trial], less: bool, metric: str) -> list[Html]:
    if len(done) < 2:
        return []
    by_number = sorted(done, key=lambda trial: trial.number)
    numbers, values = [float(trial.number) for trial in by_number], [trial.value or 0.0 for trial in by_number]
    best = [(min if less else max)(values[: i + 1]) for i in range(len(values))]
    series = [Line("best so far", numbers, best), Line("trial", numbers, values, dots=True, drawn=False)]
    charts = [lines(f"{candidate}: trials", series, "trial", metric)]
    costs = (("size, bytes", [trial.size_bytes for trial in done]), ("latency, µs", [trial.latency_us for trial in done]))
    for name, cost in costs:
        known = [(trial, value) for trial, value in zip(done, cost, strict=True) if value is not None]
        if len({value for _, value in known}) > 1:
            charts.append(_front(f"{candidate}: {metric} and {name}", known, f"estimated {name}", metric))
    return charts


def _front(title: str, known: Sequence[tuple[Trial, float]], x_label: str, metric: str) -> Html:
    groups = [("dominated", [k for k in known if not k[0].pareto]), ("Pareto front", [k for k in known if k[0].pareto])]
    series = [
        Points(name, [cost for _, cost in some], [trial.value or 0.0 for trial, _ in some],
               [f"trial {trial.number}: {metric} {number(trial.value)}, {number(cost)} {x_label}" for trial, cost in some],
               joined=name == "Pareto front")
        for name, some in groups if some
    ]  # fmt: skip
    spread = [cost for _, cost in known if cost > 0]
    return scatter(title, series, x_label, metric, log_x=bool(spread) and max(spread) > 30 * min(spread))


def budgets(record: RunRecord) -> Html:
    """What the device allows and what the model takes."""
    rows = [(chip(b.verdict), b.name, _amount(b.value, b.unit), _amount(b.limit, b.unit)) for b in record.budgets]
    return table(("Verdict", "Budget", "Value", "Limit"), rows, numbers=(2, 3)) if rows else EMPTY


def _amount(value: float | None, unit: str) -> str:
    if unit == "bytes":
        return size(value)
    return number(value) if value is None or not unit else f"{number(value)}\u00a0{unit}"
