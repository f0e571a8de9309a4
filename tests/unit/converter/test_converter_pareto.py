"""The front, the proposals and the estimates follow their rules; a budget is compared with what it says it is compared with."""

import typing
from dataclasses import replace

import pytest

from converter.budgets import Limits, Taken, budgets
from converter.estimates import estimate
from converter.pareto import Point, Proposal, front, propose
from converter.profiles import CLASSES, PROFILES, Profile, profile_of
from edgefleet.errors import ConfigError
from edgefleet.manifest import Runtime
from tests.unit.converter.conversions import compared, cost, report
from trainer.settings import DeviceProfile

PI, M4, BOX = PROFILES["raspberry-pi-zero-2"], PROFILES["cortex-m4"], PROFILES["x86-server"]


def point(name: str, size_bytes: int, latency_ms: float, loss: float = 0.0, error: float = 1e-7, runtime: Runtime = "litert") -> Point:
    memory = {"litert": 61_000_000, "onnxruntime": 90_000_000, "c": 1_000_000}[runtime]
    measured = cost(latency_ms, memory)
    facts = {"code_bytes": size_bytes + 2_000, "stack_bytes": 500, "memory_bytes": 0}
    found = {n: told for n, profile in PROFILES.items() if (told := estimate(profile, runtime, measured, size_bytes, facts)) is not None}
    return Point(name, runtime, size_bytes, latency_ms, loss, error, memory, found)


def proposed(*points: Point) -> dict[str, str | None]:
    return {proposal.device_class.name: proposal.variant for proposal in propose(points)}


def test_a_variant_that_another_beats_in_everything_is_off_the_front() -> None:
    assert front([point("good", 100, 1.0), point("larger-and-slower", 200, 2.0), point("smaller", 50, 3.0)]) == ["good", "smaller"]


def test_a_loss_keeps_a_smaller_and_faster_variant_from_beating_an_exact_one() -> None:
    assert front([point("exact", 200, 2.0), point("lossy", 100, 1.0, loss=0.001)]) == ["exact", "lossy"]


def test_a_latency_within_the_noise_does_not_put_a_variant_on_the_front() -> None:
    assert front([point("small", 100, 1.04), point("large", 200, 1.0)]) == ["small"]
    assert front([point("small", 100, 1.06), point("large", 200, 1.0)]) == ["small", "large"]


def test_c_source_is_measured_otherwise_and_beats_no_graph() -> None:
    assert front([point("c", 100, 0.001, runtime="c"), point("graph", 200, 1.0)]) == ["c", "graph"]


def test_variants_that_are_equal_stay_on_the_front_together() -> None:
    assert front([point("one", 100, 1.0), point("other", 100, 1.0)]) == ["one", "other"]


def test_an_unknown_metric_leaves_size_and_latency_to_decide() -> None:
    unknown = float("nan")

    assert front([point("good", 100, 1.0, unknown), point("bad", 200, 2.0, unknown)]) == ["good"]


def small_board(*points: Point, explain: bool) -> Proposal:
    (found,) = [proposal for proposal in propose(points, explain) if proposal.device_class.name == "small-board"]
    return found


BEST, EXPLAINED = point("tflite-int8", 4_000, 0.01), replace(point("tflite-fp32", 9_000, 0.01), explained=True)


def test_an_explained_variant_is_proposed_where_explanations_are_asked_for_and_the_price_is_said() -> None:
    found = small_board(BEST, EXPLAINED, explain=True)

    assert (found.variant, found.explained) == ("tflite-fp32", True)
    assert found.reason == "the only explained one for LiteRT or ONNX Runtime and fits; if nothing were to be explained: tflite-int8"


def test_a_proposal_without_explanation_names_the_best_that_has_one() -> None:
    found = small_board(BEST, EXPLAINED, replace(EXPLAINED, name="large", size_bytes=90_000), explain=False)

    assert (found.variant, found.explained) == ("tflite-int8", False)
    assert found.reason.endswith("; it is not explained, the best that is: tflite-fp32")


def test_where_none_that_fits_is_explained_the_best_is_proposed_and_that_is_said() -> None:
    too_large = replace(EXPLAINED, estimates={})

    found = small_board(BEST, too_large, explain=True)

    assert (found.variant, found.explained) == ("tflite-int8", False)
    assert found.reason.endswith("; no variant that fits is explained")


def test_nothing_is_said_of_explanations_where_they_cost_nothing() -> None:
    assert "explained" not in small_board(BEST, explain=False).reason
    assert "explained" not in small_board(replace(BEST, explained=True), EXPLAINED, explain=True).reason


@pytest.mark.parametrize("seed", range(20))
def test_every_set_of_variants_has_a_front(seed: int) -> None:
    import random

    rng = random.Random(seed)  # noqa: S311  # figures of variants are no secrets
    points = [point(str(i), rng.choice([1, 2, 3]), rng.choice([1.0, 1.03, 1.06, 1.2]), rng.choice([0.0, 0.01])) for i in range(8)]

    found = front(points)

    assert found
    best = min(points, key=lambda one: (one.size_bytes, one.loss, one.latency_ms))
    assert min(one.size_bytes for one in points if one.name in found) == best.size_bytes


def test_a_microcontroller_takes_c_and_says_that_nothing_else_runs_there() -> None:
    found = {
        proposal.device_class.name: proposal
        for proposal in propose([point("c", 9_000, 0.002, runtime="c"), point("tflite-fp32", 9_000, 0.01)])
    }

    assert found["microcontroller"].variant == "c"
    assert found["microcontroller"].reason == "the only one for compiled C"


def test_a_microcontroller_that_is_too_small_gets_nothing_and_hears_why() -> None:
    (proposal, *_) = propose([point("c", 5_000_000, 0.002, runtime="c")])

    assert proposal.variant is None
    assert "c: about 5002000 bytes of storage exceed the 2000000 of cortex-m7" in proposal.reason


def test_a_small_board_takes_the_runtime_with_less_memory_unless_it_is_much_slower() -> None:
    onnx = point("onnx-fp32", 9_000, 0.020, runtime="onnxruntime")

    assert proposed(onnx, point("tflite-fp32", 9_000, 0.030))["small-board"] == "tflite-fp32"
    assert proposed(onnx, point("tflite-fp32", 9_000, 0.050))["small-board"] == "onnx-fp32"


def test_an_edge_box_takes_the_fastest_and_among_equals_the_one_nearest_to_the_original() -> None:
    exact = point("onnx-fp32", 9_000, 0.0105, runtime="onnxruntime")
    lossy = point("onnx-int8", 3_000, 0.0100, error=0.05, runtime="onnxruntime")

    assert proposed(exact, lossy)["edge-box"] == "onnx-fp32"
    assert proposed(replace(exact, latency_ms=0.02), lossy)["edge-box"] == "onnx-int8"


def test_a_reason_names_the_figures_that_decided() -> None:
    found = {p.device_class.name: p for p in propose([point("tflite-fp32", 9_000, 0.010), point("tflite-int8", 4_000, 0.011, error=0.05)])}

    assert found["small-board"].reason == "of 2 for LiteRT or ONNX Runtime: smallest within 5 % (4 kB against 9 kB of tflite-fp32)"


def test_without_variants_every_class_gets_nothing() -> None:
    assert proposed() == {"microcontroller": None, "small-board": None, "edge-box": None}


def test_an_estimate_multiplies_time_and_keeps_the_memory_of_a_process() -> None:
    told = estimate(PI, "litert", cost(0.010, 61_000_000), 9_000)

    assert told is not None
    assert told.latency_p50_ms == pytest.approx(0.150)
    assert told.latency_p95_ms == pytest.approx(0.195)
    assert (told.memory_bytes, told.storage_bytes, told.misfit) == (61_000_000, 137_009_000, "")


def test_an_estimate_of_c_counts_code_and_stack_instead_of_a_process() -> None:
    facts = {"code_bytes": 15_200, "stack_bytes": 640, "memory_bytes": 24}

    told = estimate(M4, "c", cost(0.002, 1_900_000), 12_000, facts)

    assert told is not None
    assert (told.memory_bytes, told.storage_bytes) == (664, 15_200)
    unknown = estimate(M4, "c", cost(0.002), 12_000, {})
    assert unknown is not None
    assert (unknown.memory_bytes, unknown.storage_bytes) == (None, 12_000)


def test_what_a_device_cannot_run_has_no_estimate() -> None:
    assert estimate(M4, "onnxruntime", cost(0.01), 9_000) is None
    assert estimate(BOX, "c", cost(0.01), 9_000) is None


def test_a_device_with_too_little_memory_is_said() -> None:
    told = estimate(replace(PI, ram_bytes=32_000_000), "litert", cost(0.01, 61_000_000), 9_000)

    assert told is not None
    assert told.misfit == "about 61000000 bytes of memory exceed the 32000000 of raspberry-pi-zero-2"


def test_without_a_profile_a_budget_is_compared_with_the_measurement() -> None:
    limits = Limits(size_bytes=10_000, latency_p95_ms=0.012, memory_bytes=61_000_000)

    found = budgets(Taken("litert", 9_000, cost(0.010, 61_000_000)), limits)

    assert [(budget.name, budget.verdict, budget.profile) for budget in found] == [
        ("size", "pass", ""), ("latency p95", "fail", ""), ("memory", "pass", ""),
    ]  # fmt: skip
    assert found[1].sentence == "p95 latency 0.013 ms, limit 0.012 ms"


def test_with_a_profile_a_budget_is_compared_with_the_estimate_and_says_so() -> None:
    made = report("tflite-fp32", 9_000, compared(), cost(0.010, 61_000_000), Limits(latency_p95_ms=0.1, profile=PI))

    assert made.kept is False
    assert made.reason == "C6: p95 latency 0.195 ms, estimated for raspberry-pi-zero-2, limit 0.1 ms"
    assert [(budget.verdict, budget.profile) for budget in made.budgets] == [("fail", "raspberry-pi-zero-2")]


def test_a_budget_of_a_device_that_cannot_run_the_variant_is_skipped_with_the_reason() -> None:
    made = report("onnx-fp32", 9_000, compared(), cost(0.010), Limits(latency_p95_ms=0.001, profile=M4))

    assert made.kept is True
    (gate,) = [gate for gate in made.gates if gate.gate == "C6"]
    assert (gate.verdict, gate.sentence) == ("skipped", "p95 latency is not judged: its runtime is not meant for cortex-m4")


def test_memory_that_nobody_knows_is_not_within_its_budget() -> None:
    made = report("c", 9_000, compared(), cost(0.001), Limits(memory_bytes=64_000, profile=M4))

    assert made.kept is False
    assert made.reason == "C6: peak memory unknown bytes, estimated for cortex-m4, limit 64000 bytes"
    assert [gate.as_entry()["sentence"] for gate in made.gates if gate.gate == "C6"] == [
        "measured on the converting machine: see measured.json"
    ]


def test_the_trainer_accepts_the_profiles_that_the_converter_has() -> None:
    assert set(typing.get_args(DeviceProfile)) == {"", *PROFILES}


def test_every_profile_belongs_to_a_class_and_every_class_has_a_profile_of_its_own() -> None:
    assert {profile.device_class for profile in PROFILES.values()} == set(CLASSES)
    assert all(PROFILES[found.profile].device_class == found.name for found in CLASSES.values())


def test_an_unknown_profile_is_refused_with_the_names_there_are() -> None:
    assert profile_of("") is None
    with pytest.raises(ConfigError, match=r"device profile 'toaster' is unknown: one of cortex-m4, esp32-s3, .*x86-server"):
        profile_of("toaster")


def test_a_profile_is_described_whole() -> None:
    wrong = [profile for profile in PROFILES.values() if not _sane(profile)]

    assert wrong == []


def _sane(profile: Profile) -> bool:
    return profile.cpu_factor >= 1 and 100_000 <= profile.ram_bytes < profile.storage_bytes
