"""A window is explained by channel and time segment: students and samples held against all coalitions, exact methods against themselves."""

from itertools import combinations
from math import factorial
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from converter.cores.reading import core_of_estimator
from converter.explain.agreement import agreement, of_segments
from converter.explain.amortised import amortise
from converter.explain.building import explainer_for
from converter.explain.fidelity import LEAST_COSINE, LEAST_WITHIN, judge_fidelity, segments_point
from converter.explain.linear import compile_linear
from converter.explain.player_groups import MAX_PATCHES, players_for
from converter.explain.segments import without_segments
from converter.explain.shapley import Margins, channel_sums, shapley_values
from converter.explain.window_rows import window_rows_of
from device_agent.explain import open_explainer
from device_agent.explanation import Explanation
from device_agent.sampled import SampledExplainer
from edgefleet.manifest import Input
from edgefleet.package import ModelPackage, PackageIndex, Rows, npz_bytes, write_package
from edgefleet.reference import build_reference
from edgefleet.steps import Steps
from edgefleet.steps.trace import Trace

Matrix = NDArray[np.float32]
ROWS, NAMES = 8, ("flow", "vibration")
INPUTS = [Input(name=name) for name in NAMES]
PLAYERS = players_for((ROWS, 2), 2, ROWS, segments=4)


def windows(n: int, seed: int) -> Matrix:
    return np.random.default_rng(seed).normal(size=(n, ROWS, 2)).astype(np.float32)


def last_quarter(x: Matrix) -> NDArray[np.float64]:
    """Only the highest of the last two vibrations counts."""
    top: NDArray[np.float64] = np.maximum(x[:, -2:, 1].max(axis=1, keepdims=True), 0).astype(np.float64)
    return top


def last_half_against_flow(x: Matrix) -> NDArray[np.float64]:
    """Segments that interact: the highest of the last four vibrations, times how much flowed in the first two rows."""
    flow = 1 / (1 + np.exp(-2 * x[:, :2, 0].mean(axis=1, keepdims=True)))
    product: NDArray[np.float64] = (2 * flow * x[:, -4:, 1].max(axis=1, keepdims=True)).astype(np.float64)
    return product


def exact(model: Margins, row: Matrix, background: Matrix) -> NDArray[np.float64]:
    """[P] Shapley values over all coalitions of players."""
    count = int(PLAYERS.max()) + 1
    value = {}
    for size in range(count + 1):
        for coalition in combinations(range(count), size):
            mixed = np.where(np.isin(PLAYERS, coalition), row, background)
            value[coalition] = float(model(mixed).mean())
    phi = np.zeros(count)
    for coalition, worth in value.items():
        for player in set(range(count)) - set(coalition):
            weight = factorial(len(coalition)) * factorial(count - len(coalition) - 1) / factorial(count)
            phi[player] += weight * (value[tuple(sorted((*coalition, player)))] - worth)
    return phi


def sampled(model: Margins, row: Matrix, background: Matrix) -> Explanation:
    content = npz_bytes({"method": np.array("sampled"), "background": background, "players": PLAYERS.astype(np.int64)})
    margin = float(model(row[None])[0, 0])
    return open_explainer(content, "sampled", NAMES, 1).explain(row, None, margin, model)


def test_players_of_a_window_are_channels_in_as_many_segments_as_the_limit_allows() -> None:
    assert players_for((40, 3), 3, window_rows=40).max() + 1 == 24
    assert players_for((40, 5), 5, window_rows=40).max() + 1 == 30 <= MAX_PATCHES
    assert players_for((2, 5), 5, window_rows=2).tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert players_for((40, 17), 17, window_rows=40).tolist() == list(range(17))
    assert players_for((40, 3), 3, window_rows=40, segments=1).tolist() == [0, 1, 2]


def test_segments_say_that_only_the_last_quarter_of_one_channel_matters() -> None:
    x, background = windows(20, 1), windows(8, 2)
    for row in x:
        found = sampled(last_quarter, row, background)

        wanted = exact(last_quarter, row, background)
        assert found.segments is not None
        np.testing.assert_allclose(found.segments.ravel(), wanted, atol=1e-6)  # one player alone: any order is exact
        assert np.flatnonzero(np.abs(found.segments.ravel()) > 1e-9).tolist() == ([7] if abs(wanted[7]) > 1e-9 else [])
        assert (found.contributions == found.segments.sum(axis=0)).all()
        assert found.segment_rows_back == ((7, 6), (5, 4), (3, 2), (1, 0))
        assert found.error is not None
        assert found.error.shape == (2,)


def test_labels_and_references_are_the_shapley_values_of_segments_and_of_their_sums() -> None:
    x, background = windows(6, 3), windows(6, 4)

    found = shapley_values(last_half_against_flow, x, background, PLAYERS, 400, 0)

    wanted = np.stack([exact(last_half_against_flow, row, background) for row in x])
    assert (np.abs(found.values[:, :, 0] - wanted) <= 5 * found.error[:, :, 0] + 1e-6).all()
    assert found.channels is not None
    sums = wanted.reshape(6, 4, 2).sum(axis=1)
    np.testing.assert_allclose(found.channels.values, channel_sums(found.values, PLAYERS), atol=1e-12)
    assert (np.abs(found.channels.values[:, :, 0] - sums) <= 5 * found.channels.error[:, :, 0] + 1e-6).all()
    # Segments of a channel err against each other: their sum is surer than independent errors would be.
    assert (found.channels.error < 0.2).all()


def test_a_sampled_explanation_of_segments_has_error_bars_that_hold_for_the_channels() -> None:
    x, background = windows(60, 5), windows(6, 6)
    # More pairs than a device draws: what four of them say of rare interactions is no matter of segments.
    explainer = SampledExplainer(background, NAMES, pairs=128, players=PLAYERS)

    inside, near = [], []
    for row in x:
        margin = float(last_half_against_flow(row[None])[0, 0])
        found = explainer.explain(row, None, margin, lambda z: last_half_against_flow(z).astype(np.float32))
        wanted = exact(last_half_against_flow, row, background).reshape(4, 2)
        assert found.error is not None
        assert found.segments is not None
        inside.append(np.abs(found.contributions - wanted.sum(axis=0)) <= found.error + 1e-6)
        near.append(np.corrcoef(found.segments.ravel(), wanted.ravel())[0, 1])
        assert found.base + found.contributions.sum() == pytest.approx(margin, abs=1e-5)

    # Two channels of one row err alike, so 60 independent intervals at .95: three standard errors of their share.
    assert np.mean(inside) > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 60)
    assert np.mean(near) > 0.98


def test_a_student_of_segments_points_where_all_coalitions_point_and_adds_up_to_channels() -> None:
    rows, background, fresh = windows(600, 7), windows(6, 8), windows(40, 9)

    made = amortise(last_half_against_flow, rows, windows(100, 10), background, INPUTS, PLAYERS, training_rows=6000)
    explainer = open_explainer(made.content, "amortised", NAMES, 1)

    found = [explainer.explain(row, None, float(last_half_against_flow(row[None])[0, 0]), _no_model) for row in fresh]
    wanted = np.stack([exact(last_half_against_flow, row, background) for row in fresh])
    assert explainer.segment_rows_back == ((7, 6), (5, 4), (3, 2), (1, 0))
    segments = np.stack([one.segments.ravel() for one in found if one.segments is not None])
    assert agreement(segments, wanted)["cosine"] > 0.93
    for one, want in zip(found, wanted, strict=True):
        assert one.segments is not None
        assert (one.contributions == one.segments.sum(axis=0)).all()
        assert abs(one.gap) < 1e-9
        assert abs(want[[0, 2, 4, 6]]).argmax() == 0  # of flow, only the first quarter counts
    sums = wanted.reshape(-1, 4, 2).sum(axis=1)
    bars = np.stack([one.error for one in found if one.error is not None])
    inside = np.abs(np.stack([one.contributions for one in found]) - sums) <= bars
    assert inside.mean() > 0.95 - 3 * np.sqrt(0.95 * 0.05 / inside.size)


def test_steps_that_keep_rows_apart_tell_the_row_of_each_cleaned_value() -> None:
    trace = Trace((3, 2))
    gap = trace.isnan(0)
    trace.concat(
        [trace.mul(trace.where(gap, np.float32(0.5), 0), np.array([2, 3], np.float32)), trace.f32(trace.isnan(trace.take(0, [1])))]
    )
    steps = Steps(tuple(trace.ops), ("a", "b", "b missing"), (0, 1, 1))
    flat = Trace((3, 3))
    flat.reshape(flat.rows(0, 1, 3), (2, 3))

    found = window_rows_of([steps])
    both = window_rows_of([steps, Steps(tuple(flat.ops), ("a", "b", "c"), (0, 1, 2))])

    assert found is not None
    assert both is not None
    assert found.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert both.tolist() == [1, 1, 1, 2, 2, 2]
    assert window_rows_of([Steps.identity((3,))]) is None
    assert window_rows_of([]) is None


def test_a_column_that_several_rows_make_has_no_row_of_its_own() -> None:
    lag = Trace((3, 2))
    lag.sub(lag.rows(0, 1, 3), lag.rows(0, 0, 2))
    constant = Trace((3, 2))
    constant.where(constant.isnan(0), 0, np.float32(1))
    never = Trace((3, 2))
    never.mul(never.add(0, np.float32(0)), never.add(0, np.float32(1)))  # twice the same value is still one

    assert window_rows_of([Steps(tuple(lag.ops), ("a", "b"), (0, 1))]) is None
    assert window_rows_of([Steps(tuple(constant.ops), ("a", "b"), (0, 1))]) is not None
    assert window_rows_of([Steps(tuple(never.ops), ("a", "b"), (0, 1))]) is not None


def window_package(folder: Path, level: bool = False) -> ModelPackage:
    """Rows and schema of a model of windows; the model itself is given as a function. `level`: the flow does not vary within a window."""
    x, schema = windows(500, 11), [Input(name=name) for name in NAMES]
    if level:
        x[:, :, 0] = x[:, :1, 0]

    def rows(first: int, stop: int) -> bytes:
        ids = np.arange(first, stop)
        return Rows(x[first:stop], np.zeros(stop - first), np.full(stop - first, "all"), ids.astype(str)).to_bytes()

    files = {
        "model.keras": b"given as a function",
        "schema.json": msgspec.json.encode(schema),
        "reference.npz": build_reference(x[:, -1], schema, block_rows=20).to_bytes(),
        "rows/golden.npz": rows(0, 32),
        "rows/parity.npz": rows(0, 160),
        "rows/calibration.npz": rows(160, 480),
        "rows/background.npz": rows(480, 496),
        "evaluation.json": b"{}\n",
        "gates.json": b"[]\n",
        "provenance.json": b"{}\n",
        "card.md": b"# windows\n",
    }
    index = PackageIndex(
        format_version=1, project="windows", task="regression", model="model.keras", family="keras", margin_kind="target unit",
        classes=[], shape=[ROWS, 2], overrides=[], files={}, window_rows=ROWS,
    )  # fmt: skip
    return write_package(folder, index, files)


def test_a_student_of_windows_tells_segments_that_it_points_at(tmp_path: Path) -> None:
    found = explainer_for(None, window_package(tmp_path), "auto", last_quarter, products=3_000.0)

    assert found.method == "amortised"
    assert found.figures["segment_cosine_low"] >= 0.95
    assert "its 4 time segments, cosine" in found.notes[0]
    explainer = open_explainer(found.content, "amortised", NAMES, 1)
    assert explainer.segment_rows_back == ((7, 6), (5, 4), (3, 2), (1, 0))


def test_a_student_that_cannot_tell_segments_apart_explains_whole_channels(tmp_path: Path) -> None:
    def wild_in_time(x: Matrix) -> NDArray[np.float64]:
        """The flow, which is level within a window, of one row: which one changes with every small step of the vibration."""
        which = np.floor(np.abs(x[:, :, 1].sum(axis=1, keepdims=True)) * 50).astype(int) % ROWS
        read: NDArray[np.float64] = np.take_along_axis(x[:, :, 0], which, axis=1).astype(np.float64)
        return read

    found = explainer_for(None, window_package(tmp_path, level=True), "amortised", wild_in_time, products=500_000.0)

    assert "segment_cosine" not in found.figures
    assert found.figures["cosine"] > 0.9
    assert open_explainer(found.content, "amortised", NAMES, 1).segment_rows_back == ()


def test_a_student_that_divides_level_channels_evenly_tells_no_segments() -> None:
    segments = np.repeat(np.random.default_rng(21).normal(size=(60, 1, 2)), 4, axis=1)
    moved = segments + 0.1 * np.random.default_rng(22).normal(size=segments.shape)

    figures = of_segments(segments, moved)

    assert figures["segment_cosine_low"] >= LEAST_COSINE  # the angle alone would let it pass
    assert figures["segment_within_low"] < 0.1
    assert not segments_point(figures)
    assert segments_point(of_segments(moved, moved))
    assert segments_point({"cosine_low": 0.99})


@pytest.mark.parametrize("within", [0.849, 0.851])
def test_time_segments_are_judged_by_a_gate_of_their_own(within: float) -> None:
    figures = {"cosine_low": 0.99, "top3_low": 0.9, "segment_cosine_low": 0.97, "segment_within_low": within}

    judged = {one.name: (one.gate, one.ok) for one in judge_fidelity(0.0, figures)}

    assert judged["segment_cosine_low"] == ("X4", True)
    assert judged["segment_within_low"] == ("X4", within > LEAST_WITHIN)
    assert judged["cosine_low"] == ("X2", True)


def test_a_student_without_its_segments_says_the_same_of_whole_channels() -> None:
    made = amortise(last_half_against_flow, windows(300, 7), windows(60, 10), windows(6, 8), INPUTS, PLAYERS, training_rows=2000)

    plain = open_explainer(without_segments(made.content), "amortised", NAMES, 1)

    told = open_explainer(made.content, "amortised", NAMES, 1)
    assert plain.segment_rows_back == ()
    for row in windows(20, 9):
        margin = float(last_half_against_flow(row[None])[0, 0])
        found, before = plain.explain(row, None, margin, _no_model), told.explain(row, None, margin, _no_model)
        assert found.segments is None
        np.testing.assert_allclose(found.contributions, before.contributions, atol=1e-5)
        np.testing.assert_array_equal(found.error, before.error)
        assert abs(found.gap) < 1e-9


def test_sampling_without_its_segments_draws_whole_channels() -> None:
    content = npz_bytes({"method": np.array("sampled"), "background": windows(6, 6), "players": PLAYERS.astype(np.int64)})

    found = open_explainer(without_segments(content), "sampled", NAMES, 1)

    assert found.segment_rows_back == ()
    row = windows(1, 5)[0]
    margin = float(last_quarter(row[None])[0, 0])
    assert abs(found.explain(row, None, margin, lambda x: last_quarter(x).astype(np.float32)).gap) < 1e-6
    assert without_segments(without_segments(content)) == without_segments(content)


def test_sampling_of_a_costly_model_is_of_whole_channels_because_segments_would_not_be_proven(tmp_path: Path) -> None:
    package = window_package(tmp_path)

    # 400 pairs of 2 x 7 x 16 evaluations: 9e4 x products, at most 3e10.
    cheap, costly = (explainer_for(None, package, "sampled", products=products) for products in (3e5, 4e5))

    assert open_explainer(cheap.content, "sampled", NAMES, 1).segment_rows_back == ((7, 6), (5, 4), (3, 2), (1, 0))
    assert open_explainer(costly.content, "sampled", NAMES, 1).segment_rows_back == ()


def test_costly_models_get_fewer_segments_before_they_get_no_student(tmp_path: Path) -> None:
    # 2000 label rows at 2 (P - 1) x 16 evaluations: 4 segments (P = 8) cost 4.5e5 x products, 2 segments (P = 4) 1.9e5.
    found = explainer_for(None, window_package(tmp_path), "amortised", last_quarter, products=1e6)

    assert open_explainer(found.content, "amortised", NAMES, 1).segment_rows_back == ((7, 4), (3, 0))


def test_a_sampled_window_is_cut_into_quarters(tmp_path: Path) -> None:
    found = explainer_for(None, window_package(tmp_path), "sampled")

    explainer = open_explainer(found.content, "sampled", NAMES, 1)
    assert explainer.segment_rows_back == ((7, 6), (5, 4), (3, 2), (1, 0))


def _no_model(x: Matrix) -> Matrix:
    raise AssertionError("a student asks no model")


@pytest.mark.parametrize("lagged", [False, True])
def test_a_converted_linear_model_says_when_unless_its_columns_reach_over_rows(lagged: bool) -> None:
    from sklearn.linear_model import Ridge

    trace = Trace((ROWS, 2))
    scaled = trace.mul(0, np.array([2, 0.5], np.float32))
    if lagged:
        trace.sub(trace.rows(scaled, 1, ROWS), trace.rows(scaled, 0, ROWS - 1))
    steps = Steps(tuple(trace.ops), NAMES, (0, 1))
    x, background = windows(200, 12), windows(200, 12)
    z = steps.run(x).reshape(200, -1).astype(np.float64)
    model = Ridge().fit(z, z[:, -1] + 0.5 * z[:, 0])

    content = compile_linear(core_of_estimator(model, task="regression"), background, steps)
    found = open_explainer(content, "linear", NAMES, 1).explain(x[0], None, float(model.predict(z[:1])[0]), _no_model)

    if lagged:
        assert found.segments is None
    else:
        moved = (z[0] - z.mean(axis=0)) * model.coef_
        assert found.segments is not None
        np.testing.assert_allclose(found.segments, moved.reshape(ROWS, 2), atol=1e-6)
    assert abs(found.gap) < 1e-5


def test_segments_that_no_row_could_be_asked_about_do_not_pass() -> None:
    nothing = np.reshape([], (-1, 4, 3))

    assert not segments_point(of_segments(nothing, nothing))
