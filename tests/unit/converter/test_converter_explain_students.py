"""A student foretells Shapley values as well as it says: measured against all coalitions, with gaps, categories, patches and windows."""

from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from converter.explain.agreement import agreement
from converter.explain.amortised import Amortised, amortise, reference_values
from converter.explain.encoding import encoding_for
from converter.explain.player_groups import players_for
from converter.explain.shapley import shapley_values
from device_agent.explain import open_explainer
from edgefleet.manifest import Input

Matrix = NDArray[np.float32]
NAMES = ("a", "b", "c", "kind")
INPUTS = [Input(name="a"), Input(name="b", missing=True), Input(name="c"), Input(name="kind", kind="category", categories=["x", "y", "z"])]


def rows(n: int, seed: int) -> Matrix:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    x[:, 3] = rng.integers(0, 3, n)
    x[rng.random(n) < 0.2, 1] = np.nan
    return x


def margins(x: Matrix) -> NDArray[np.float64]:
    """Two columns with an interaction, a gap that means something, and a category."""
    b = np.where(np.isnan(x[:, 1]), -1.0, x[:, 1]).astype(np.float64)
    first = 2 * x[:, 0] + b * (x[:, 3] == 1) + 0.5 * np.maximum(x[:, 2], 0)
    return np.column_stack([first, -first + x[:, 2]])


@pytest.fixture(scope="module")
def student() -> Amortised:
    return amortise(margins, rows(300, 1), rows(100, 2), rows(16, 3), INPUTS, np.arange(4), training_rows=3000)


def exact(row: Matrix, background: Matrix) -> NDArray[np.float64]:
    """[F, K] over all 24 orders."""
    phi = np.zeros((4, 2))
    for order in permutations(range(4)):
        mixed = background.copy()
        before = margins(mixed).mean(axis=0)
        for j in order:
            mixed[:, j] = row[j]
            after = margins(mixed).mean(axis=0)
            phi[j] += (after - before) / 24
            before = after
    return phi


def test_sampled_labels_of_many_rows_are_the_shapley_values() -> None:
    x, background = rows(10, 4), rows(8, 5)

    found = shapley_values(margins, x, background, np.arange(4), 400, 0)

    wanted = np.stack([exact(row, background) for row in x])
    # 400 pairs of one interaction: standard errors of a few thousandths, and the bound of five of them.
    assert np.abs(found.values - wanted).max() < 0.02
    assert (np.abs(found.values - wanted) <= 5 * found.error + 1e-9).all()
    np.testing.assert_allclose(found.values.sum(axis=1) + found.base, margins(x), atol=1e-9)


def test_a_student_points_where_the_shapley_values_point(student: Amortised) -> None:
    for column in range(2):
        found = agreement(student.values[:, :, column], student.reference.values[:, :, column])
        assert found["cosine_low"] > 0.98
        assert found["top3_low"] > 0.9


def test_the_device_answers_what_the_student_was_measured_with_and_adds_up(student: Amortised) -> None:
    explainer = open_explainer(student.content, "amortised", NAMES, 2)

    for i, row in enumerate(rows(100, 2)[:30]):
        for column in range(2):
            margin = float(margins(row[None])[0, column])
            found = explainer.explain(row, column, margin, _no_model)
            np.testing.assert_allclose(found.contributions, student.values[i, :, column], atol=2e-5)  # float32 sums of 256 units
            assert abs(found.gap) < 1e-9
            assert found.base + found.contributions.sum() == pytest.approx(margin, abs=1e-9)


def test_error_bars_cover_nineteen_of_twenty_contributions_of_rows_never_seen(student: Amortised) -> None:
    explainer = open_explainer(student.content, "amortised", NAMES, 2)
    background, fresh = rows(16, 3), rows(60, 9)

    inside = []
    for row in fresh:
        found = explainer.explain(row, 0, float(margins(row[None])[0, 0]), _no_model)
        assert found.error is not None
        inside.append(np.abs(found.contributions - exact(row, background)[:, 0]) <= found.error + 1e-6)

    # 240 contributions at .95: three standard errors of that share below it.
    assert np.mean(inside) > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 240)


def test_equal_inputs_give_equal_students() -> None:
    made = [amortise(margins, rows(60, 1), rows(20, 2), rows(4, 3), INPUTS, np.arange(4), training_rows=1000).content for _ in range(2)]

    assert made[0] == made[1]


def test_pixels_of_a_patch_share_its_contribution() -> None:
    players = players_for((8, 8), 64)
    assert len(set(players.tolist())) == 16
    x = np.random.default_rng(0).normal(size=(200, 64)).astype(np.float32)
    weight = np.arange(64, dtype=np.float64) / 64
    inputs = [Input(name=f"p{i}") for i in range(64)]

    made = amortise(lambda z: (z @ weight)[:, None], x, x[:40], x[:8], inputs, players, training_rows=1000)
    found = open_explainer(made.content, "amortised", tuple(f"p{i}" for i in range(64)), 1).explain(x[50], None, 0.0, _no_model)

    patches = found.contributions.reshape(8, 8)
    assert np.ptp(patches[:2, :2]) == 0.0
    assert np.ptp(patches[:2, 2:4]) == 0.0
    assert patches[0, 0] != patches[0, 2]


def test_a_windows_channels_are_explained_as_wholes() -> None:
    x = np.random.default_rng(0).normal(size=(150, 5, 2)).astype(np.float32)

    def of_window(z: Matrix) -> NDArray[np.float64]:
        total: NDArray[np.float64] = (z[:, :, 0].sum(axis=1) + np.maximum(z[:, -1, 1], 0)).astype(np.float64)
        return total[:, None]

    made = amortise(of_window, x, x[:60], x[:8], [Input(name="u"), Input(name="v")], np.arange(2), training_rows=2000)
    found = open_explainer(made.content, "amortised", ("u", "v"), 1).explain(x[100], None, float(of_window(x[100:101])[0, 0]), _no_model)

    wanted = reference_values(of_window, x[100:101], x[:8], np.arange(2), 0).values[0, :, 0]
    assert found.contributions.shape == (2,)
    np.testing.assert_allclose(found.contributions, wanted, atol=0.3)  # of contributions of about two


def test_what_does_not_vary_is_not_looked_at_and_a_gap_is_a_flag_of_its_own() -> None:
    x = rows(50, 0)
    x[:, 2] = 7

    found = encoding_for(x, INPUTS)

    assert found.numbers.tolist() == [0, 1]
    assert found.coded.tolist() == [1, 3, 3, 3]
    assert np.isnan(found.codes[0])
    encoded = found.encode(np.array([[0, np.nan, 7, 2], [0, 0, 7, 9]], np.float32))
    np.testing.assert_array_equal(encoded[:, 2:], [[1, 0, 0, 1], [0, 0, 0, 0]])
    assert encoded[0, 1] == 0


def test_players_of_an_image_are_at_most_thirty_two_patches_with_all_their_channels() -> None:
    players = players_for((28, 28, 3), 28 * 28 * 3)

    assert len(set(players.tolist())) <= 32
    assert len(set(players.reshape(28, 28, 3)[0, 0].tolist())) == 1
    assert players_for((12,), 12).tolist() == list(range(12))


def _no_model(x: Matrix) -> Matrix:
    raise AssertionError("a student asks no model")
