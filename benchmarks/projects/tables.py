"""Public data sets as tables with the splits under which their baselines were measured. `folder` holds one sub-folder per set."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas

SEED = 0


def gas_drift(folder: str) -> "pandas.DataFrame":
    """Which gas: batches 1 and 2 train and validate, batch 3 (months later) tests."""
    import pandas

    parts = [pandas.read_csv(Path(folder, "gas_drift", f"batch{b}.csv.gz")) for b in (1, 2, 3)]
    table = pandas.concat(parts, ignore_index=True).drop(columns="concentration_ppmv")
    return _hold_out(table, np.arange(len(table)) >= len(table) - len(parts[-1]))


def ai4i2020(folder: str) -> "pandas.DataFrame":
    """Machine failure, in the order of time: 50 / 20 / 30 %. Failure modes and identifiers, which give the answer away, are dropped."""
    import pandas

    table = pandas.read_csv(Path(folder, "ai4i2020", "ai4i2020.csv.gz"))
    table = table.drop(columns=["UDI", "Product ID", "TWF", "HDF", "PWF", "OSF", "RNF"])
    at = np.arange(len(table))
    return table.assign(split=np.where(at < 5_000, "train", np.where(at < 7_000, "validation", "test")))


def occupancy(folder: str) -> "pandas.DataFrame":
    """Is the room occupied: one week trains, another validates, a later one with the door open tests."""
    import pandas

    files = {"train": "datatraining", "validation": "datatest", "test": "datatest2"}
    parts = [pandas.read_csv(Path(folder, "occupancy", f"{file}.csv.gz")).assign(split=split) for split, file in files.items()]
    return pandas.concat(parts, ignore_index=True)


def adult(folder: str) -> "pandas.DataFrame":
    """Income above 50K: adult.data trains and validates, adult.test tests; the dot behind the test file's labels is dropped."""
    import pandas

    parts = [
        pandas.read_csv(Path(folder, "adult", f"adult.{name}.csv.gz"), skipinitialspace=True, na_values="?").assign(part=name)
        for name in ("data", "test")
    ]
    table = pandas.concat(parts, ignore_index=True)
    table["income"] = table["income"].str.rstrip(".")
    return _hold_out(table, (table["part"] == "test").to_numpy())


def heart(folder: str) -> "pandas.DataFrame":
    """Heart disease: Cleveland trains and validates, Hungary tests."""
    import pandas

    parts = [pandas.read_csv(Path(folder, "heart", f"{site}.csv.gz")).assign(site=site) for site in ("cleveland", "hungarian")]
    table = pandas.concat(parts, ignore_index=True)
    table["disease"] = np.where(table.pop("num") > 0, "yes", "no")
    return _hold_out(table, (table["site"] == "hungarian").to_numpy())


def cmapss(folder: str) -> "pandas.DataFrame":
    """Remaining cycles of turbofans, at most 125: whole engines train and validate, the last row of each test engine tests."""
    import pandas

    train = pandas.read_csv(Path(folder, "cmapss", "train_FD001.csv.gz"))
    train["rul"] = train.groupby("unit")["cycle"].transform("max") - train["cycle"]
    units = np.random.default_rng(SEED).permutation(train["unit"].unique())
    train["split"] = np.where(train["unit"].isin(units[:15]), "validation", "train")
    test = pandas.read_csv(Path(folder, "cmapss", "test_FD001.csv.gz")).groupby("unit").tail(1).copy()
    truth = pandas.read_csv(Path(folder, "cmapss", "RUL_FD001.csv.gz"))
    test["rul"], test["split"], test["unit"] = truth.iloc[:, -1].to_numpy(), "test", test["unit"] + 1_000
    return pandas.concat([train, test], ignore_index=True)


def beijing_air(folder: str, station: str = "Aotizhongxin") -> "pandas.DataFrame":
    """PM2.5 of one station: 2013 and 2014 train, 2015 validates, 2016 and 2017 test; hours without PM2.5 are dropped."""
    import pandas

    table = pandas.read_csv(Path(folder, "beijing_air", f"{station}.csv.gz"), na_values="NA").dropna(subset=["PM2.5"])
    year = table["year"].to_numpy()
    split = np.where(year <= 2014, "train", np.where(year == 2015, "validation", "test"))
    return table.assign(split=split, season=table["month"].map(lambda month: ("winter", "spring", "summer", "autumn")[month % 12 // 3]))


def _hold_out(table: "pandas.DataFrame", test: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> "pandas.DataFrame":
    """Test rows as marked, a random fifth of the others validates."""
    validation = np.random.default_rng(SEED).random(len(table)) < 0.2
    # The copy is in one piece: a file of 128 columns is read into many.
    return table.copy().assign(split=np.where(test, "test", np.where(validation, "validation", "train")))
