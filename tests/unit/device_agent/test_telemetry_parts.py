"""Pace, clock, self-observation, sampled explanations and payload sampling: each by its own numbers, with the time as an argument."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agent import Scorer
from device_agent.doors.answering import Answering
from device_agent.telemetry.clockwatch import ClockWatch
from device_agent.telemetry.events import EVENTS_PER_MINUTE, EventLimit
from device_agent.telemetry.explaining import RECORDS_PER_MINUTE, SampledExplanations
from device_agent.telemetry.pace import Pace
from device_agent.telemetry.payload import PayloadSampling, PayloadSettings
from device_agent.telemetry.selfwatch import SelfWatch, disk_free_bytes, temperature_c, versions
from device_agent.update.trial import Trial
from edgefleet.desired import PayloadOrder
from edgefleet.errors import ConfigError, RowRejected
from edgefleet.manifest import Input
from edgefleet.messages import AttributionSums, PayloadBody, decode
from tests.unit.device_agent.agent_world import QUICK, make_bundle, weights

INPUTS = [Input(name="speed"), Input(name="heat"), Input(name="kind", kind="category", categories=["x", "y"])]
ROW = [1.5, 2.5, "x"]


def sent_in(pace: Pace, seconds: float, size_bytes: int, look_s: float = 0.1) -> int:
    went = 0
    for i in range(round(seconds / look_s)):
        while pace.may(1000.0 + i * look_s):
            pace.went(size_bytes)
            went += 1
    return went


@pytest.mark.parametrize(("size_bytes", "per_s"), [(300, 50), (10, 50), (6_553, 10), (262_144, 0.25)])
def test_a_backlog_leaves_at_the_rate_of_records_or_of_bytes_whichever_is_less(size_bytes: int, per_s: float) -> None:
    went = sent_in(Pace(50.0, 65_530.0), 120.0, size_bytes)

    # A burst of 0.4 s in advance, and the last record may exceed it.
    assert 120 * per_s * 0.98 <= went <= 120.5 * per_s + 2


def test_a_clock_that_is_set_is_noticed_once_and_slewing_is_not() -> None:
    watch = ClockWatch(10**15, 100.0)
    steps = [(10**15 + 10**6, 101.0), (10**15 + 3 * 10**13, 102.0), (10**15 + 3 * 10**13 + 1_000_500, 103.0), (10**15 + 4 * 10**6, 104.0)]

    moved = [watch.look(wall_us, steady_s) for wall_us, steady_s in steps]

    assert moved == [0, 3 * 10**13 - 2 * 10**6, 0, 2 * 10**6 - 500 - 3 * 10**13]
    assert watch.jumps == 2


def test_the_clock_offset_is_that_of_the_fastest_message_and_a_retained_one_does_no_harm() -> None:
    watch = ClockWatch(5_000_000, 5.0)
    assert watch.offset_ms(5_000_000, 5.0) is None

    watch.heard(0, 6.0)
    watch.heard(1_000, 6.0)  # retained for long
    for i, delay_us in enumerate([300_000, 20_000, 90_000]):
        watch.heard(70_000_000 + (7 + i) * 1_000_000 - delay_us, 7.0 + i)

    # The server's clock is 70 s ahead of the steady one, ours equals it; the fastest message took 20 ms.
    assert watch.offset_ms(10_000_000, 10.0) == 70_000 - 20
    # Our clock is set right: the offset follows at once, without another message.
    assert watch.offset_ms(81_000_000, 11.0) == -20


def test_the_hottest_zone_counts_and_nonsense_does_not(tmp_path: Path) -> None:
    for i, content in enumerate(["41500", "67125", "-274000", "999999999", "no number", ""]):
        (tmp_path / f"thermal_zone{i}").mkdir()
        (tmp_path / f"thermal_zone{i}" / "temp").write_text(content)

    assert temperature_c(tmp_path) == 67.125
    assert temperature_c(tmp_path / "none") is None


def test_the_load_of_a_busy_second_is_about_a_core_and_of_an_idle_one_about_nothing(tmp_path: Path) -> None:
    watch = SelfWatch(tmp_path, tmp_path)
    assert watch.look(10.0, None, 0).cpu_permille == 0
    start_s = time.process_time()
    while time.process_time() - start_s < 0.2:
        pass
    busy = watch.look(10.25, 7, 2)
    idle = watch.look(1000.0, None, 2)

    assert busy.cpu_permille >= 700
    assert idle.cpu_permille <= 5
    assert (busy.clock_offset_ms, busy.clock_jumps, busy.temperature_c) == (7, 2, None)
    assert busy.rss_bytes > 10**7
    assert busy.disk_free_bytes == pytest.approx(disk_free_bytes(tmp_path), rel=0.2)
    assert watch.facts()["cpu_percent"] == idle.cpu_permille / 10


def test_versions_name_what_is_installed() -> None:
    assert versions()["numpy"] == np.__version__
    assert disk_free_bytes(Path("/nonexistent")) is None


def test_explanations_keep_to_their_share_of_a_core_and_skips_are_counted() -> None:
    sampled = SampledExplanations(10, 0.05)
    explained = 0
    for i in range(100_000):  # 1,000 rows a second for 100 s; an explanation takes 20 ms
        if sampled.due("m", i / 1000):
            sampled.spent(0.020)
            sampled.add("m", [1.0, -0.5])
            explained += 1

    assert explained * 0.020 == pytest.approx(0.05 * 100, rel=0.05)
    sums = sampled.take("m")
    assert sums == AttributionSums(
        rows=explained, total=[float(explained), -0.5 * explained], absolute=[float(explained), 0.5 * explained], skipped=9_999 - explained
    )
    assert (sampled.explained, sampled.skipped, sampled.take("m")) == (explained, 9_999 - explained, None)


def test_a_row_that_the_budget_did_not_allow_is_made_up_for_as_soon_as_there_is_some() -> None:
    sampled = SampledExplanations(1000, 0.1)
    asked = [sampled.due("m", 0.0)]
    sampled.spent(1.0)
    asked += [sampled.due("m", float(second)) for second in range(1, 1000)]
    asked += [sampled.due("m", 1000.0), sampled.due("new", 1000.5)]
    sampled.spent(1.0)
    later = [sampled.due("other", 1001.0 + second) for second in range(20)]

    assert [i for i, due in enumerate(asked) if due] == [0, 1000, 1001]
    assert [i for i, due in enumerate(later) if due] == [10]
    assert sampled.skipped == 0


def test_without_a_rate_no_row_is_due_and_every_first_row_of_a_model_is() -> None:
    assert not any(SampledExplanations(0, 0.05).due("m", float(i)) for i in range(100))
    sampled = SampledExplanations(4, 1.0)
    assert [sampled.due("m", float(i)) for i in range(6)] == [True, False, False, False, True, False]
    assert sampled.due("other", 7.0)


def test_a_contribution_that_is_not_finite_or_of_another_length_poisons_no_sum() -> None:
    sampled = SampledExplanations(1, 1.0)
    for contributions in ([1.0, 2.0], [float("nan"), 1.0], [1.0, 2.0, 3.0], [float("inf"), 0.0]):
        sampled.add("m", contributions)

    assert sampled.take("m") == AttributionSums(rows=1, total=[1.0, 2.0], absolute=[1.0, 2.0], skipped=3)


def test_single_explanations_and_events_are_few_a_minute() -> None:
    sampled, limit = SampledExplanations(1, 1.0), EventLimit()

    assert sum(sampled.may_travel_alone(1.0) for _ in range(100)) == RECORDS_PER_MINUTE
    assert sampled.may_travel_alone(62.0)
    assert sum(limit.admits("n", f"text {i}") for i in range(100)) == EVENTS_PER_MINUTE
    assert [limit.admits("other", "same"), limit.admits("other", "same")] == [True, False]


def sampling(settings: PayloadSettings | None, order: PayloadOrder | None) -> PayloadSampling:
    return PayloadSampling(settings, lambda: order)


def taken(sampling: PayloadSampling, row: Any = ROW, now_s: float = 0.0) -> PayloadBody | None:
    content = sampling.take("b" * 64, INPUTS, row, ("ok", 0.9), now_s)
    return None if content is None else decode(PayloadBody, content)


@pytest.mark.parametrize(
    ("settings", "order"),
    [
        (None, None),
        (PayloadSettings(60), None),
        (None, PayloadOrder(rows_per_hour=60)),
        (PayloadSettings(60), PayloadOrder(rows_per_hour=0)),
        (PayloadSettings(60), PayloadOrder(rows_per_hour=-1)),
        (PayloadSettings(60), PayloadOrder(rows_per_hour=60, bytes_per_day=0)),
    ],
)
def test_no_row_leaves_unless_both_sides_allow_it(settings: PayloadSettings | None, order: PayloadOrder | None) -> None:
    chosen = sampling(settings, order)

    assert [taken(chosen, now_s=float(i)) for i in range(0, 10_000, 100)] == [None] * 100
    assert chosen.sampled == 0


def test_the_stricter_side_counts_in_rate_bytes_and_redaction() -> None:
    chosen = sampling(PayloadSettings(1200, ("heat",), 500), PayloadOrder(rows_per_hour=60, redact=["kind"]))

    bodies = [taken(chosen, now_s=float(i)) for i in range(600)]
    got = [body for body in bodies if body is not None]

    assert {tuple(body.row) for body in got} == {("speed",)}
    assert len(got) == 500 // 91  # bytes of one body; 60 an hour would be ten
    assert chosen.too_large == 10 - len(got)
    assert taken(chosen, now_s=86_401.0) is not None


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        (ROW, {"speed": 1.5, "heat": 2.5, "kind": "x"}),
        (np.array([1.5, 2.5, 1.0], np.float32), {"speed": 1.5, "heat": 2.5, "kind": 1.0}),
        ({"heat": None, "speed": True, "owner": "Mr Smith", "kind": "y"}, {"speed": 1.0, "heat": None, "kind": "y"}),
        (["Mr Smith", 2.5, "Mr Smith"], {"speed": None, "heat": 2.5, "kind": None}),
        ([[0, 0, "y"], ROW], {"speed": 1.5, "heat": 2.5, "kind": "x"}),
        (np.zeros((4, 3), np.float32), {"speed": 0.0, "heat": 0.0, "kind": 0.0}),
        ([{"speed": 1}, {"speed": 2}], {"speed": 2.0, "heat": None, "kind": None}),
    ],
)
def test_a_sampled_row_holds_the_models_inputs_and_nothing_else(row: Any, shown: dict[str, Any]) -> None:
    body = taken(sampling(PayloadSettings(60), PayloadOrder(rows_per_hour=60)), row)

    assert body is not None
    assert (body.row, body.label, body.score) == (shown, "ok", 0.9)


@pytest.mark.parametrize(("rate", "limit"), [(0, 1), (-1, 1), (3601, 1), (1, 0), (float("nan"), 1)])
def test_impossible_settings_of_sampling_are_refused_with_value_and_limit(rate: float, limit: int) -> None:
    with pytest.raises(ConfigError, match="out of range, expected"):
        PayloadSettings(rate, (), limit)


def test_what_a_trial_says_of_a_refused_row_names_the_input_and_not_its_value(tmp_path: Path) -> None:
    models = Answering()
    trial = Trial(policy=QUICK, started_s=0.0, compared=True)
    models.install(Scorer.open(make_bundle(tmp_path / "a", weights(1))))
    models.begin_trial(Scorer.open(make_bundle(tmp_path / "b", weights(2))), trial)

    with pytest.raises(RowRejected, match="12345"):
        models.score([0.0, 0.0, 0.0, 12345.0, 0.0])
    assert models.settle(30.0)  # the candidate answers beside the running model, on a thread of its own
    models.close()

    assert trial.last_error == "a row was refused: input 'f3' (range)"
