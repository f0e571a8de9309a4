"""Invented read models for the page's tests: a small fleet like the demo's, a large wave, an empty fleet, and hostile strings."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Flask, Request, Response

from edgefleet.errors import InputError
from fleet_server.auth import SESSION_COOKIE, Actor
from fleet_server.errors import ConflictError, UnauthorizedError
from fleet_server.grouping import GroupView, digest_of
from fleet_server.page import Feed, create_page
from fleet_server.page.source import ActionName, DeviceChange
from fleet_server.queries.errors import NotFoundError
from fleet_server.read_approval import ApprovalRow, ApprovalView
from fleet_server.read_drift import DriftDevice, DriftView, FeatureDrift, Histogram
from fleet_server.read_evidence import ChanceView, EvidenceView, NeedView, WaitView
from fleet_server.read_halt import HaltView
from fleet_server.read_models import (
    ActionView,
    DeviceRow,
    DeviceView,
    EventView,
    ExplanationView,
    GateView,
    NeedsYou,
    OverviewView,
    Progress,
    ReleaseRow,
    RolloutRow,
    RolloutView,
    WaveMember,
    WaveView,
)
from fleet_server.read_observed import AttributionView, InputAttribution, LoadView, Observed, SamplingView, ShadowView, ShareView
from fleet_server.read_plan import LabelWords, LastPolicy, PlannedWaveView, PlanView, Vocabulary
from fleet_server.read_registry import RegistryNote
from fleet_server.reasons import reason_of
from fleet_server.regrouping import GroupChange, How, added, read_wanted, taken
from fleet_server.selection import matches, read_selection, written

NOW = datetime(2026, 11, 23, 14, 32, 6, tzinfo=UTC)
OPERATOR_TOKEN = "eft_invented-operator"
VIEWER_TOKEN = "eft_invented-viewer"
CONFLICT_VERSION = 6
D1, D2, D3 = (letter * 64 for letter in "abc")
TROUBLE = (
    "MLflow at http://mlflow.example.org:5000 did not take it all (no answer: Connection refused); digits-3 is not registered; "
    "it is tried again by itself"
)
NAMES = [f"pixel_{r}_{c}" for r in range(8) for c in range(8)]


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def release(version: str = "2", **changes: Any) -> ReleaseRow:
    row = ReleaseRow(
        release_id=f"digits-{version}",
        project="digits",
        version=version,
        counter=int(version),
        bundle_digest=D2,
        created_at=ago(400),
        note="Retrained with rows of the faulty camera.",
        variants=["onnx-fp32", "tflite-fp32", "tflite-int8"],
        size_bytes=1_840_000,
        attested_devices=3,
        gates=[
            ("G1 accuracy", "pass", "0.964 of 360 rows, at least 0.900 is needed."),
            ("G4 against the champion", "overridden", "0.11 worse than release 1 on the same 360 rows."),
            ("C1 agreement tflite-int8", "pass", "99.2 % of 360 rows have the same label."),
            ("G7 slices", "inconclusive", "12 rows are too few for the slice 'hall-2'."),
            ("G9 labels", "skipped", "No late labels yet."),
        ],
        overrides=[("G4", "bad on purpose, to see the fleet stop it")],
    )
    return replace(row, **changes)


def member(number: int, progress: Progress, reason: str = "") -> WaveMember:
    return WaveMember(f"camera-{number:02}", progress, reason, f"hall-{number % 2 + 1}")


def waves() -> list[WaveView]:
    return [
        WaveView(1, "promoted", [member(1, "ok", "committed and attested")], ago(90), ago(60), "All 1 of 1 committed."),
        WaveView(
            2,
            "open",
            [member(2, "ok", "committed and attested"), member(3, "pending", "trial, 14 of 20 rows")],
            ago(58),
            None,
            "Waits for 1 of 2 devices.",
        ),
        WaveView(
            3,
            "next",
            [
                member(4, "failed", "agreement 0.08 over 50 rows, at least 0.60 is needed"),
                member(5, "silent", "no sign of life for 31 s"),
                *(member(i, "not-begun") for i in (6, 7, 8)),
            ],
            None,
            None,
            "Opens when wave 2 is promoted.",
        ),
    ]


def rollout_view(**changes: Any) -> RolloutView:
    view = RolloutView(
        rollout_id="r-2",
        release=release(),
        replaces="1",
        state="running",
        version=7,
        verdict="hold",
        sentence="Hold: wave 2 waits for 1 of 2 devices. None of 3 failed.",
        missing="camera-03 is in trial, 14 of 20 rows. Wave 3 (5 devices) opens at 14:33 at the earliest.",
        waves=waves(),
        gates=[
            GateView("Committed and attested", "hold", "1 of 2", "2 of 2", 2, "camera-03 is still in trial."),
            GateView("Failures", "promote", "0", "0", 3, "No device failed."),
            GateView("Silence", "promote", "0", "0", 3, "Every device spoke in the last 6 s."),
            GateView("Label accuracy", "waiting", "none", "\u2265 0.91", 0, "Labels arrive later; this gate does not bind."),
        ],
        events=[
            EventView(ago(58), "engine", "promote", "Wave 1: 1 of 1 committed and attested. Wave 2 opened."),
            EventView(ago(95), "operator-1", "start", "First release of the retrained model."),
            EventView(ago(5000), "operator-2", "create", "Plan for 8 devices in 3 waves."),
        ],
        actions=[
            ActionView("pause", "Pause", "No further device gets release 2. 1 pending device finishes its trial."),
            ActionView("resume", "Resume", "", "Not paused."),
            ActionView("abort", "Stop", "No further device gets release 2, and the rollout is over. 2 devices keep it."),
            ActionView("roll-back", "Roll back 3 devices", "3 devices return to release 1; 5 never had release 2."),
        ],
        policy_name="demo",
        policy_notes=["Demo policy: proves nothing about rates."],
        policy_digest=D3,
        selection="project = digits",
        created_at=ago(120),
    )
    return replace(view, **changes)


def large_rollout() -> RolloutView:
    def state(i: int) -> Progress:
        return "failed" if i % 29 == 7 else "silent" if i % 97 == 11 else "ok" if i < 290 else "pending" if i < 340 else "not-begun"

    first = [WaveMember(f"press-{i:04}", "failed" if i == 31 else "ok", "", "north") for i in range(95)]
    second = [WaveMember(f"press-{i:04}", state(i - 95), "", "south") for i in range(95, 475)]
    third = [WaveMember(f"press-{i:05}", "not-begun", "", "south") for i in range(475, 475 + 4000)]
    return rollout_view(
        rollout_id="r-large",
        waves=[
            WaveView(1, "promoted", first, ago(90_000), ago(50_000), "1 of 95 failed."),
            WaveView(2, "open", second, ago(15_000), None, "14 of 290 matured devices failed."),
            WaveView(3, "next", third, None, None, ""),
        ],
        policy_notes=[],
    )


def evidence(**changes: Any) -> EvidenceView:
    numbers = {
        0.01: (0.0014, 0.0014, 95, 111, 0.0, 95, 112),
        0.03: (0.0402, 0.0453, 284, 312, 0.0337, 285, 313),
        0.05: (0.6979, 1.0, 40, 101, 1.0, 41, 125),
        0.1: (0.9988, 1.0, 8, 20, 1.0, 12, 21),
        0.2: (1.0, 1.0, 4, 11, 1.0, 22, 29),
        0.5: (1.0, 1.0, 3, 5, 1.0, 54, 63),
    }
    view = EvidenceView(
        rule="bound",
        limit=0.05,
        decides="time",
        held_back=480,
        waits=[
            WaitView("pace", 126, "The next batch begins at 15:02."),
            WaitView("window", 61, "It is outside the hours in which they may begin."),
        ],
        chances=[ChanceView(failing, *map(float, (*row, 0.9731, 0.9994, 9.26, 9.0, 14.0))) for failing, row in numbers.items()],
        runs=10_000,
        needs=[
            NeedView("memory", "15 % more memory", 0.0488, 36, 1),
            NeedView("class rate", "3 points more positive answers", 0.01, None, None),
        ],
    )
    return replace(view, **changes)


def evidence_rollout(**changes: Any) -> RolloutView:
    """10,000 devices, wave 2 open: 109 promoted, 210 of 396 begun, 7,995 to come."""
    bad = [
        WaveMember("press-00107", "failed", "self-test: golden row 12 differs by 0.31", "south"),
        WaveMember("press-00212", "failed", "rolled back: trial timed out", "south"),
        WaveMember("press-00333", "silent", "no sign of life for 2.4 h", "north"),
    ]
    counts: list[dict[Progress, int]] = [{"ok": 109}, {"ok": 140, "failed": 2, "silent": 1, "pending": 66, "not-begun": 187}]
    counts += [{"not-begun": 1_995}, {"not-begun": 7_020}]
    waves = [
        WaveView(1, "promoted", [], ago(150_000), ago(22_000), "0 of 109 devices failed, 1 of 109 are missing.", counts[0]),
        WaveView(2, "open", bad, ago(22_000), None, "", counts[1]),
        WaveView(3, "next", [], None, None, "", counts[2]),
        WaveView(4, "later", [], None, None, "", counts[3]),
    ]
    gates = [
        GateView("facts", "promote", "0", "0", 318, "The facts of all 318 devices can be read."),
        GateView(
            "stop", "promote", "0.71", "20", 318, "2 of 318 devices failed, 1 were silent: evidence 0.71 of 20 against 5 %.", 0.0,
            "21 more failures of the devices that have begun would abort it.",
        ),
        GateView(
            "early warning", "promote", "2.31", "10", 318, "2 of 318 failed: nothing unusual.", 0.36,
            "14 more failures would pause it for a person.",
        ),
        GateView(
            "sites", "promote", "0.92", "20", 52, "0 of 52 sites went dark: no more than sites do.", 0.0,
            "7 more sites going dark would hold or pause it.",
        ),
        GateView("comparisons", "promote", "1", "100", 318, "The policy compares nothing."),
        GateView(
            "time", "hold", "6.1 h", "12.0 h", 318, "Hold: 318 of 505 devices have begun, more follow in batches.", 0.51,
            "It needs the remaining batches being opened, 5.9 h more of dwell and the deadline of 66 more devices being over.",
        ),
        GateView(
            "evidence", "hold", "1.7 % failing, 1.19 % missing", "5 %, 6.1 %", 252,
            "Hold: 2 of 252 devices failed, 1 of 252 are missing; 1.7 % failing, 1.19 % missing, the limit is 5 %, 6.1 %.", 0.34,
            "More devices will have had their time; a person is asked 24.0 h after the wave has had its time, if there is no answer then.",
        ),
    ]  # fmt: skip
    view = rollout_view(
        rollout_id="r-evidence",
        waves=waves,
        gates=gates,
        sentence="Hold: 318 of 505 devices have begun, more follow in batches. 2 of 318 failed.",
        missing="Without an answer it pauses for a person in about 1 day.",
        policy_name="by evidence",
        policy_notes=[],
        events=[
            EventView(ago(9_000), "operator-2", "resume", "The gateway of hall 3 was repaired."),
            EventView(ago(12_000), "engine", "pause", "Pause: 3 of 12 sites went dark within two hours of their first device."),
            EventView(ago(22_000), "engine", "open-wave", "Wave 1 was promoted."),
            EventView(ago(22_000), "engine", "promote", "Promote: 0 of 109 devices failed, 1 of 109 are missing; within 5 %."),
            EventView(ago(40_000), "engine", "mature", "Wave 1 has had its time."),
            EventView(ago(150_000), "engine", "open-wave", "The rollout was started."),
            EventView(ago(150_000), "operator-1", "start", "Quarterly model."),
        ],
        evidence=evidence(),
    )
    return replace(view, **changes)


def waiting_rollout() -> RolloutView:
    """By evidence, approved by one of two people."""
    view = evidence_rollout()
    waves = [
        replace(one, state="next" if one.number == 1 else "later", members=[], opened_at=None, promoted_at=None, reason="")
        for one in view.waves
    ]
    waves = [replace(one, counts={"not-begun": sum(one.counts.values())}) for one in waves]
    return replace(
        view,
        rollout_id="r-draft",
        state="draft",
        verdict="waiting",
        sentence="Waiting: 9,520 devices in 4 waves; no device has begun.",
        missing="A person starts it.",
        waves=waves,
        gates=[],
        events=view.events[-1:],
        evidence=evidence(decides="", waits=[]),
    )


def approval(**changes: Any) -> ApprovalView:
    view = ApprovalView(
        "r-draft",
        "draft",
        3,
        D2,
        2,
        [
            ApprovalRow("operator-1", ago(4_000), "The numbers are fine.", counts=True),
            ApprovalRow("operator-3", ago(9_000), "", counts=False),
        ],
        "1 of 2 approvals are there (operator-1); missing: 1 from operators or admins other than operator-4",
        "nothing",
    )
    return replace(view, **changes)


def halted() -> HaltView:
    return HaltView(
        halted=True,
        sentence="The fleet is halted since 14:20 by admin-1: smoke in hall 3.",
        since=ago(700),
        issued_at=ago(700),
        reason="Smoke in hall 3.",
        ordered_by="admin-1",
        counter=3,
        devices_know=7,
        devices_all=8,
    )


def rollout_row(rollout_id: str = "r-2", **changes: Any) -> RolloutRow:
    progress: list[dict[Progress, int]] = [{"ok": 1}, {"ok": 1, "pending": 1}, {"failed": 1, "silent": 1, "not-begun": 3}]
    row = RolloutRow(rollout_id, "2", "digits", "running", "hold", 2, 3, 4, 8, "Waits for 1 of 2 devices.", progress, ago(120))
    return replace(row, **changes)


def device_row(number: int, **changes: Any) -> DeviceRow:
    row = DeviceRow(
        device_id=f"camera-{number:02}",
        project="digits",
        labels={"site": f"hall-{number % 2 + 1}", "runtime": "onnx" if number % 2 else "tflite"},
        connected=True,
        last_seen_at=ago(number),
        desired_digest=D1,
        desired_release="1",
        running_digest=D1,
        running_release="1",
        attested_digest=D1,
        state="committed",
        quarantined=[],
        runtimes=["onnxruntime 1.23"],
        rows_total=1200 + 17 * number,
        latency_p50_ms=0.31 + number / 50,
        drifting=False,
        why="Runs what it should, attested.",
    )
    return replace(row, **changes)


def device_rows() -> list[DeviceRow]:
    return [
        device_row(1),
        device_row(2),
        device_row(3, state="trial", desired_digest=D2, desired_release="2", why="Trial of release 2: 14 of 20 rows."),
        device_row(
            4,
            state="rolled-back",
            desired_digest=D2,
            desired_release="2",
            quarantined=[D2],
            why="Rolled back to 1 and well: release 2 agreed with 1 on 4 of 50 rows, 30 are needed.",
        ),
        device_row(5, connected=False, last_seen_at=ago(94 * 60), why="No sign of life since 12:58."),
        device_row(6, drifting=True, why="Runs what it should; its inputs differ from its peers."),
        device_row(7, latency_p50_ms=None, rows_total=0, state="idle", why="Has not scored yet."),
        device_row(
            8,
            running_digest="",
            running_release="",
            attested_digest="",
            state="idle",
            connected=False,
            last_seen_at=None,
            why="Never reported.",
        ),
    ]


def histogram(feature: str, shift: float) -> Histogram:
    def bell(at: float) -> list[float]:
        raw = [math.exp(-((i - at) ** 2) / 6) for i in range(12)]
        return [value / sum(raw) for value in raw]

    cells = ["below", *(f"{i} to {i + 1}" for i in range(10)), "above"]
    return Histogram(feature, cells, bell(5), bell(5 + shift), 480)


def explanation(**changes: Any) -> ExplanationView:
    weights = [0.9 * math.sin(i * 1.7) * math.exp(-(((i // 8) - 3.5) ** 2 + ((i % 8) - 3.5) ** 2) / 9) for i in range(64)]
    view = ExplanationView(
        "camera-06", "2", ago(8), "3", 0.942, sum(weights) + 0.1, 0.1, "treeshap", 0.0, NAMES, weights, [0.0] * 64, [8, 8]
    )
    return replace(view, **changes)


def drift_device(number: int) -> DriftDevice:
    states = {6: ("alarm", 3123.0), 2: ("watching", 41.0), 8: ("too-few", 1.0)}
    state, evidence = states.get(number, ("quiet", 0.3 + number / 20))
    features = [
        FeatureDrift(
            name,
            1.4 / (i + 1) if state != "quiet" else 0.01 * i,
            evidence / (i + 1),
            state if i < 3 or state == "too-few" else "quiet",  # type: ignore[arg-type]
        )
        for i, name in enumerate(NAMES)
    ]
    alarmed = ago(42) if state == "alarm" else None
    return DriftDevice(
        f"camera-{number:02}",
        {"site": f"hall-{number % 2 + 1}"},
        state,  # type: ignore[arg-type]
        12 if number != 8 else 0,
        480 if number != 8 else 0,
        evidence,
        features,
        alarmed,
    )


def observed(device_id: str | None = None, **changes: Any) -> Observed:
    weights = sorted(((2.4 * math.exp(-i / 3), name) for i, name in enumerate(NAMES)), reverse=True)
    whole = sum(weight for weight, _ in weights)
    inputs = [InputAttribution(name, weight, weight * math.cos(i), weight / whole) for i, (weight, name) in enumerate(weights)]
    view = Observed(
        project="digits",
        device_id=device_id,
        since_at=ago(86_400),
        until_at=NOW,
        windows=24,
        complete=True,
        attribution=[AttributionView("1", D1, 1204, 36, inputs, 1 if device_id else 7, ago(40))],
    )
    return replace(view, **changes)


def compared() -> ShadowView:
    return ShadowView("1", D1, "2", D2, 1240, 1180, 1141, 2, 6, 0, 52, 1141 / 1186, 1180, -0.0127, 0.081, 1, ago(3), 0.42)


def shares() -> list[ShareView]:
    return [
        ShareView("1", D1, 90.0, 4510, 12, 0.912, [("0", 451), ("1", 2255), ("2", 1804)], 0.41, 1, ago(3)),
        ShareView("2", D2, 10.0, 498, 1, 0.934, [("0", 48), ("1", 250), ("2", 200)], 0.38, 1, ago(3)),
    ]


def load(number: int) -> LoadView:
    known = number % 2 == 0
    return LoadView(
        cpu_percent=3.2 * number,
        rss_bytes=74_000_000,
        disk_free_bytes=11_800_000_000 if known else None,
        temperature_c=51.3 if known else None,
        clock_offset_ms=-42 if known else None,
        clock_jumps=1 if known else 0,
        heard_at=ago(4),
    )


def order(device_id: str) -> SamplingView:
    return SamplingView(device_id, 60.0, ["pixel_0_0", "pixel_0_1"], 1_000_000, NOW + timedelta(hours=5), ago(7000), "operator-2")


def device_view(row: DeviceRow, log: list[EventView]) -> DeviceView:
    """Device 6 has everything there is, the others what most have."""
    number = int(row.device_id[-2:]) if row.device_id[-2:].isdigit() else 1
    values = [histogram(f"pixel_0_{i}", 3 if number == 6 and i < 2 else 0.1 * i) for i in range(6)]
    more: dict[str, Any] = {"shadow": [compared()], "shares": shares(), "sampled_rows": 12} if number == 6 else {}
    return DeviceView(
        device=row,
        events=log,
        drift=drift_device(number),
        histograms=values if row.rows_total else [],
        explanation=explanation() if number == 6 else None,
        load=load(number) if row.rows_total else None,
        observed=observed(row.device_id, **more) if row.rows_total else observed(row.device_id, windows=0, attribution=[]),
        sampling=order(row.device_id) if number == 6 else None,
    )


def drift_view() -> DriftView:
    return DriftView(
        "digits",
        "camera-06 sees something else than its peers: pixel_0_0 and 2 more inputs, since 14:31:24.",
        "Evidence 3,100, alarm at 1,000. 7 peers show nothing, so it is not the release.",
        1000.0,
        [drift_device(i) for i in (6, 2, 7, 5, 4, 3, 1, 8)],
        [("camera-06", histogram("pixel_0_0", 3)), ("camera-06", histogram("pixel_0_1", 2)), ("camera-06", histogram("pixel_0_2", -1.5))],
        ago(3),
        observed(),
    )


def overview_view(**changes: Any) -> OverviewView:
    view = OverviewView(
        needs_you=[
            NeedsYou(
                "abort",
                "digits 2 stopped in wave 1: 1 of 1 device failed",
                "camera-04 went back to release 1 by itself.",
                "/rollouts/r-2",
                "See why",
            ),
            NeedsYou("drift", "camera-06 sees something else than its peers", "e-value 3,100, alarm at 1,000.", "/drift", "See drift"),
            NeedsYou("approval", "digits 3 waits for a second approval", "8 devices in 3 waves.", "/rollouts/r-2", "Review plan"),
            NeedsYou(
                "pause",
                "leak-detect 3 paused in wave 1: the control group went silent too",
                "Looks like the site.",
                "/rollouts/r-2",
                "Decide",
            ),
        ],
        rollouts=[
            rollout_row(),
            rollout_row("r-1", verdict="done", state="done", wave=3, release="1", sentence="All 8 devices committed and attested."),
            rollout_row(
                "r-0", verdict="abort", state="aborted", wave=1, release="0", sentence="1 of 1 failed: agreement 0.08 over 50 rows."
            ),
        ],
        devices_total=8,
        devices_connected=6,
        devices_as_desired=5,
        devices_rolled_back=1,
        rows_total=1_240_312,
        latency_p95_ms=0.8123,
        releases_in_field=[("digits 2", 3), ("digits 1", 4)],
        explanation=explanation(),
        as_of=ago(2),
        notes=["Demo policy: proves nothing about rates."],
    )
    return replace(view, **changes)


PLAN_DIGEST = "4f1c8e02ab97" + "0" * 52


def plan_view(**changes: Any) -> PlanView:
    waves = [
        PlannedWaveView(1, 95, 95, [("pi4", 60), ("", 35)], 0.0, 7_200.0, 86_400.0, 0.0, 93_600.0),
        PlannedWaveView(
            2, 2_000, 1_905, [(f"model-{number}", 200) for number in range(9)], 93_600.0, 3_600.0, 50_400.0, 20_000.0, 170_000.0
        ),
    ]
    chances = [ChanceView(0.1, 0.93, 1.0, 7, 15, 0.9, 9, 21, 0.9, 1.0, 9.3, 9, 14)]
    view = PlanView(
        PLAN_DIGEST, "digits", "2", "digits-2", "measured", "ab" * 32, "all devices", "bound", 0.05,
        "digits 2 to 2,000 devices in 2 waves; rule bound, limit 5 % failures; done after 2 days at the earliest.", 2_105, 105, 4, waves,
        170_000.0, None, chances, 10_000, [NeedView("memory", "15 % more memory", 0.05, 36, 1)],
        ["All devices are at one site (s3): an outage there is no news about the release."],
    )  # fmt: skip
    return replace(view, **changes)


class InventedSource:
    """Answers with values that tests may exchange; obeys the same rules as the real one: roles, versions, unknown names."""

    def __init__(self) -> None:
        self.view = overview_view()
        self.rollout_rows = [rollout_row(), rollout_row("r-1", verdict="done", state="done", wave=3)]
        self.rollout_views = {
            "r-2": rollout_view(),
            "r-large": large_rollout(),
            "r-evidence": evidence_rollout(),
            "r-draft": waiting_rollout(),
        }
        self.release_rows = [
            release("3", overrides=[], attested_devices=0, registry=RegistryNote("", "", None, TROUBLE, ago(40))),
            release(),
            release("1", gates=[], overrides=[], note="", registry=RegistryNote("digits", "4", ago(4000), "", None)),
        ]
        self.device_rows = device_rows()
        self.group_texts = {("digits", "pilots"): "device(camera-01, camera-04)", ("digits", "hall-1"): "site = hall-1"}
        self.group_plans = {"pilots": ["r-2"]}
        self.regrouped: list[tuple[str, str, str, str, str, str]] = []
        self.drift_view: DriftView | None = drift_view()
        self.log = rollout_view().events
        self.change_rows: list[tuple[int, str]] = [(41, "overview")]
        self.acted: list[tuple[str, str, int, str, str]] = []
        self.changed: list[tuple[str, DeviceChange, str]] = []
        self.anonymous: Actor | None = None
        self.approval = approval()
        self.approved: list[tuple[str, str, str, str]] = []
        self.created: list[tuple[str, str, str, str]] = []
        self.halt_view = HaltView(halted=False, sentence="The fleet is not halted, and never was.")

    def overview(self, now: datetime) -> OverviewView:
        return self.view

    def rollouts(self, now: datetime) -> list[RolloutRow]:
        return self.rollout_rows

    def rollout(self, rollout_id: str, now: datetime) -> RolloutView:
        if rollout_id not in self.rollout_views:
            raise NotFoundError("rollout", rollout_id)
        return self.rollout_views[rollout_id]

    def releases(self) -> list[ReleaseRow]:
        return self.release_rows

    def devices(self, now: datetime) -> list[DeviceRow]:
        return self.device_rows

    def groups(self) -> dict[tuple[str, str], str]:
        return self.group_texts

    def group_rows(self, after: tuple[str, str], limit: int) -> list[GroupView]:
        return [self.group(*pair) for pair in sorted(self.group_texts) if pair > after][:limit]

    def group(self, project: str, name: str) -> GroupView:
        if (project, name) not in self.group_texts:
            raise NotFoundError(f"group of project {project}", name)
        text = self.group_texts[project, name]
        devices = len(self._meant(text))
        plans = self.group_plans.get(name, [])
        return GroupView(project, name, text, digest_of(text), devices, "", plans, ago(90_000), "operator-1", "They volunteered.")

    def group_devices(self, project: str, name: str, limit: int) -> list[str]:
        return self._meant(self.group_texts[project, name])[:limit]

    def group_change(self, project: str, name: str, how: How, wanted: str) -> GroupChange:
        if how != "make":
            self.group(project, name)
        before, given = self.group_texts.get((project, name), ""), read_wanted(wanted)
        sums = {"add": added, "take": taken}
        after = written(sums[how](read_selection(before), given) or given) if how in sums else written(given)
        was, then = self._meant(before) if before else [], self._meant(after)
        came, went = [one for one in then if one not in was], [one for one in was if one not in then]
        digest = digest_of(f"{before}\n{after}")
        plans = self.group_plans.get(name, [])
        return GroupChange(project, name, before, after, digest, len(then), came[:20], len(came), went[:20], len(went), [], plans)

    def change_group(self, project: str, name: str, how: How, wanted: str, *, digest: str, reason: str, actor: Actor) -> None:
        if digest != self.group_change(project, name, how, wanted).digest:
            raise ConflictError(f"this is not the change of group {name} that was shown. Nothing was changed.")
        self.regrouped.append((project, name, how, wanted, reason_of(reason), actor.name))

    def remove_group(self, project: str, name: str, *, digest: str, reason: str, actor: Actor) -> None:
        if digest != self.group(project, name).digest:
            raise ConflictError(f"group {name} is another one by now. Nothing was changed; look again.")
        self.regrouped.append((project, name, "remove", "", reason_of(reason), actor.name))

    def projects(self) -> list[str]:
        return sorted({row.project for row in self.device_rows})

    def _meant(self, text: str) -> list[str]:
        selection = read_selection(text)
        return [row.device_id for row in self.device_rows if matches(selection, row.device_id, row.labels)]

    def device(self, device_id: str, now: datetime) -> DeviceView:
        for row in self.device_rows:
            if row.device_id == device_id:
                return device_view(row, self.log)
        raise NotFoundError("device", device_id)

    def drift(self, project: str | None, now: datetime) -> DriftView | None:
        return self.drift_view

    def events(self, limit: int) -> list[EventView]:
        return self.log[:limit]

    def newest_change(self) -> int:
        return self.change_rows[-1][0] if self.change_rows else 0

    def changes_after(self, seq: int) -> Sequence[tuple[int, str]]:
        return [row for row in self.change_rows if row[0] > seq]

    def act(self, rollout_id: str, action: ActionName, *, version: int, reason: str, actor: Actor) -> None:
        if version == CONFLICT_VERSION:
            raise ConflictError("operator-1 paused it 4 s ago.")
        if action == "resume":
            raise InputError("The rollout is not paused.")
        self.acted.append((rollout_id, action, version, reason, actor.name))

    def change_device(self, device_id: str, change: DeviceChange, *, actor: Actor) -> None:
        if device_id not in {row.device_id for row in self.device_rows}:
            raise NotFoundError("device", device_id)
        self.changed.append((device_id, change, actor.name))

    def approvals(self, rollout_id: str) -> ApprovalView:
        return self.approval

    def approve(self, rollout_id: str, *, digest: str, note: str, actor: Actor) -> None:
        if digest != self.approval.digest:
            raise ConflictError("the plan has changed since: who is in which wave. Nothing was done; look again.")
        self.approved.append((rollout_id, digest, note, actor.name))

    def vocabulary(self, project: str) -> Vocabulary:
        return Vocabulary([LabelWords("runtime", ["onnx", "tflite"], False), LabelWords("site", ["hall-1", "hall-2"], True)], ["pilots"])

    def measured_policy(self) -> dict[str, Any]:
        return {"name": "measured"}

    def last_policy(self, release_id: str) -> LastPolicy | None:
        return LastPolicy("careful", "cd" * 32, "r-2", {"name": "careful"})

    def plan(self, release_id: str, policy: dict[str, Any], selection: str, now: datetime) -> PlanView:
        read_selection(selection or "has(site)")
        return plan_view(policy_name=policy["name"], selection=selection or "all devices")

    def create_rollout(self, release_id: str, policy: dict[str, Any], selection: str, *, digest: str, actor: Actor) -> str:
        if digest != PLAN_DIGEST:
            raise ConflictError(f"you looked at plan {digest[:12]}, it is {PLAN_DIGEST[:12]} now. Nothing was created; look again.")
        self.created.append((release_id, policy["name"], selection, actor.name))
        return "r-draft"

    def halt(self) -> HaltView:
        return self.halt_view

    def actor(self, asked: Request) -> Actor | None:
        name = asked.cookies.get(SESSION_COOKIE)
        if name == "operator-2":
            return Actor(name, "operator", None, "session")
        return Actor(name, "viewer", None, "session") if name == "viewer-1" else self.anonymous

    def actor_now(self, asked: Request) -> Actor | None:
        return self.actor(asked)

    def sign_in(self, token: str, response: Response) -> None:
        names = {OPERATOR_TOKEN: "operator-2", VIEWER_TOKEN: "viewer-1"}
        if token not in names:
            raise UnauthorizedError("this token is unknown, expired or revoked; ask an admin for another one")
        response.set_cookie(SESSION_COOKIE, names[token], httponly=True, samesite="Lax")

    def sign_out(self, asked: Request, response: Response) -> None:
        response.delete_cookie(SESSION_COOKIE)


def empty_source() -> InventedSource:
    source = InventedSource()
    source.view = overview_view(
        needs_you=[], rollouts=[], devices_total=0, devices_connected=0, devices_as_desired=0, devices_rolled_back=0, rows_total=0,
        latency_p95_ms=None, releases_in_field=[], explanation=None, notes=[],
    )  # fmt: skip
    source.group_texts = {}
    source.rollout_rows, source.release_rows, source.device_rows, source.drift_view, source.log = [], [], [], None, []
    return source


def page_app(source: InventedSource, *, live_clock: bool = False) -> tuple[Flask, Feed]:
    app = Flask("page-tests")
    feed = create_page(app, source, max_viewers=3, clock=None if live_clock else lambda: NOW)
    return app, feed
