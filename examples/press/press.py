"""A small physical model of hydraulic presses that wear out, and the table of their hourly readings.

Each press is pumped by an axial piston pump whose leakage grows with wear. The equations, in this order, per hour:

- load L (0 to 1) follows the shift: two shifts of eight hours, one of rest, with a product-dependent share of full force.
- wear W grows by `WEAR_PER_HOUR` x L^3 x (oil factor) x exp((T - 50) / 20): cubic in load as rolling bearings (ISO 281), doubling about
  every 14 K as oil films thin; a press starts new or used, and is overhauled (W = 0) some hours after W passes 1.
- pump leakage q = 0.02 + 0.10 W^2 of the displacement; the controller holds pressure, so the motor works against it: current
  I = 18 + 60 L (1 + q) A; oil temperature follows a first-order law with time constant 3 h towards 35 + 30 L (1 + 2 q) + room degC.
- vibration (velocity RMS) v = 1.2 + 1.5 L + 3.5 W^4 mm/s: late and steep, as a spalling bearing.
- cycle time c = 4.0 (1 + q) s; pressure p = 210 L + 20 bar with ripple that grows with leakage.

A row says the readings of one hour with sensor noise. The label is 1 when wear passes 1 within the next `HORIZON_H` hours. Three of a
hundred vibration readings are missing (a loose plug), and presses differ by their oil and by an offset of each sensor.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import pandas

HORIZON_H: Final = 24
WEAR_PER_HOUR: Final = 0.0045
OILS: Final = {"HLP-32": 1.35, "HLP-46": 1.0, "HLP-68": 0.85}  # viscosity class -> factor on wear
PRODUCTS: Final = {"bracket": 0.55, "housing": 0.75, "panel": 0.95}  # product -> share of full force
MISSING_FRACTION: Final = 0.03


def rows(presses: int = 48, hours: int = 240, seed: int = 1) -> "pandas.DataFrame":
    """Hourly readings of all presses, press by press, oldest first.

    Args:
        presses: Number of presses, at least 3.
        hours: Hours recorded of each, at least 100.
        seed: Of everything random.

    Returns:
        Columns press, time_h, pressure_bar, oil_temperature_c, current_a, vibration_mm_s, cycle_s, oil, product, fails_soon ("no", "yes").

    Raises:
        ValueError: Too few presses or hours.
    """
    import pandas

    if presses < 3 or hours < 100:
        raise ValueError(f"presses = {presses}, hours = {hours}: at least 3 presses and 100 hours are needed")
    parts = [_press(index, hours, np.random.default_rng([seed, index])) for index in range(presses)]
    return pandas.concat(parts, ignore_index=True)


def _press(index: int, hours: int, rng: np.random.Generator) -> "pandas.DataFrame":
    import pandas

    oil = list(OILS)[index % len(OILS)]
    # The readings go on for the horizon, so that the last recorded hour has a label too.
    total = hours + HORIZON_H
    product = np.repeat(rng.choice(list(PRODUCTS), size=total // 24 + 1), 24)[:total]
    force = np.array([PRODUCTS[name] for name in product])
    working = (np.arange(total) + 8 * int(rng.integers(3))) % 24 < 16
    load = np.where(working, force * rng.uniform(0.85, 1.0, total), 0.05)
    room = 22 + 4 * np.sin(2 * np.pi * np.arange(total) / 24)
    temperature, wear, overhauled = 45.0, float(rng.uniform(0, 0.9)), 0
    worn, heat = np.empty(total), np.empty(total)
    for hour in range(total):
        leakage = 0.02 + 0.10 * wear**2
        temperature += (35 + 30 * load[hour] * (1 + 2 * leakage) + room[hour] - 22 - temperature) / 3
        wear += WEAR_PER_HOUR * load[hour] ** 3 * OILS[oil] * np.exp((temperature - 50) / 20) * rng.gamma(4.0, 0.25)
        worn[hour], heat[hour] = wear, temperature
        if wear >= 1:
            overhauled += 1
        if overhauled > 6:
            wear, overhauled = 0.0, 0
    failed = worn >= 1
    ahead = np.array([failed[hour + 1 : hour + 1 + HORIZON_H].any() and not failed[hour] for hour in range(total)])
    lost = 0.02 + 0.10 * np.minimum(worn, 1.2) ** 2
    offset = rng.normal(0, 1, 5)
    noise = rng.normal(0, 1, (total, 5))
    vibration = 1.2 + 1.5 * load + 3.5 * np.minimum(worn, 1.2) ** 4 + 0.15 * offset[3] + 0.12 * noise[:, 3]
    table = pandas.DataFrame(
        {
            "press": f"press-{index:02d}",
            "time_h": np.arange(total),
            "pressure_bar": 210 * load + 20 + 2 * offset[0] + (1 + 10 * lost) * noise[:, 0],
            "oil_temperature_c": heat + 0.8 * offset[1] + 0.4 * noise[:, 1],
            "current_a": 18 + 60 * load * (1 + lost) + 0.6 * offset[2] + 0.5 * noise[:, 2],
            "vibration_mm_s": np.where(rng.random(total) < MISSING_FRACTION, np.nan, vibration),
            "cycle_s": np.where(working, 4.0 * (1 + lost) + 0.02 * offset[4] + 0.03 * noise[:, 4], 0.0),
            "oil": oil,
            "product": product,
            "fails_soon": np.where(ahead, "yes", "no"),
        }
    )
    # A press that has failed is not scored until its overhaul is done.
    return table[(table["time_h"] < hours) & ~failed].reset_index(drop=True)
