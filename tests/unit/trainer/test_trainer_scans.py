import numpy as np
import pytest

from examples.digits import scans


def test_every_scan_is_in_exactly_one_group() -> None:
    groups = [scans.group(name) for name in ("train", "validation", "test", "traffic")]

    assert sorted(np.concatenate(groups).tolist()) == list(range(1797))


def test_the_same_seed_gives_the_same_rows_and_another_does_not() -> None:
    assert scans.rows(1).equals(scans.rows(1))
    assert not scans.rows(1).equals(scans.rows(2))


def test_rows_have_the_declared_columns_and_range() -> None:
    table = scans.rows(1, ["normal", "camera-fault"])
    pixels = table[[f"p{r}{c}" for r in range(8) for c in range(8)]].to_numpy()

    assert list(table.columns)[64:] == ["label", "split", "slice", "row_id", "scan"]
    assert len(table) == 2 * (800 * 6 + 220 * 4 + 177 * 4)
    assert pixels.dtype == np.float32
    assert (pixels.min(), pixels.max()) == (0.0, 16.0)
    assert table["row_id"].is_unique
    assert set(table["label"]) == set("0123456789")
    assert table.groupby("scan")["split"].nunique().max() == 1


def test_a_device_shares_no_scan_with_another_and_draws_the_same_again() -> None:
    first, labels = scans.traffic(1, 0, 8, 200, "normal")
    again, _ = scans.traffic(1, 0, 8, 200, "normal")
    other, _ = scans.traffic(1, 1, 8, 200, "normal")

    assert first.shape == (200, 64)
    assert first.dtype == np.float32
    assert set(labels) <= set("0123456789")
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    own = [set(scans.group("traffic")[device::8].tolist()) for device in range(8)]
    assert [len(scans_of_one) for scans_of_one in own] == [75] * 8
    assert len(set().union(*own)) == 600


@pytest.mark.parametrize(("down", "right"), [(0, 0), (1, 0), (-1, 0), (0, 1), (1, -1)])
def test_a_shift_moves_ink_and_fills_the_rim_with_zero(down: int, right: int) -> None:
    image = np.zeros((1, 8, 8), np.float32)
    image[0, 3, 4] = 9

    moved = scans.shift(image, np.array([[down, right]]))

    assert moved[0, 3 + down, 4 + right] == 9
    assert moved.sum() == 9


def test_ink_shifted_over_the_rim_is_gone() -> None:
    image = np.zeros((1, 8, 8), np.float32)
    image[0, 0, 0] = 9

    assert scans.shift(image, np.array([[-1, 0]])).sum() == 0


def test_noise_has_the_declared_spread() -> None:
    noisy = scans.noise(np.full((2000, 8, 8), 8, np.float32), np.random.default_rng(0))

    # 128,000 draws: the standard error of the standard deviation is 0.6 / sqrt(256,000) = 0.0012; four of them.
    assert noisy.std() == pytest.approx(0.6, abs=0.005)


def test_the_camera_fault_compresses_contrast_and_lifts_black() -> None:
    images = np.array([[[0.0, 16.0]]], np.float32)

    assert scans.expose(images, "camera-fault").tolist() == [[[pytest.approx(8.0), pytest.approx(13.6)]]]


def test_an_unknown_situation_is_refused() -> None:
    with pytest.raises(ValueError, match="situation 'fog' is unknown: one of normal, camera-fault"):
        scans.rows(1, ["fog"])


def test_more_devices_than_scans_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 600 devices"):
        scans.traffic(1, 0, 601, 10, "normal")


def test_shuffling_changes_training_labels_only() -> None:
    honest, shuffled = scans.rows(1), scans.rows(1, shuffle_labels=True)

    kept = (honest["label"] == shuffled["label"]).groupby(honest["split"]).mean()

    assert honest.drop(columns="label").equals(shuffled.drop(columns="label"))
    assert (kept["validation"], kept["test"]) == (1, 1)
    assert kept["train"] < 0.15  # one in ten is right by chance
