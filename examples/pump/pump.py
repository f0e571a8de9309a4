"""A small physical model of centrifugal pumps, sampled once a second, in one of three conditions.

Per second, with speed n (fraction of rated) wandering slowly with demand:

- affinity laws: head H = 32 n^2 - 14 (Q / n) n^2 m, flow Q settles where the pipe's demand H = 4 + 16 Q^2 is met (solved in closed form for
  Q relative to rated flow), power P = 1.1 Q H + 6 n^3 kW (hydraulic power and disc friction).
- healthy: vibration 1.0 + 0.8 n^2 mm/s with noise.
- cavitation (suction too low): flow falls by 6 %, pressure and vibration *flicker*: bubbles collapse in bursts, so their variance grows
  fourfold while their means hardly move. A single row cannot tell it from noise, a window can.
- imbalance (deposit on the impeller): vibration grows by 1.2 n^2 mm/s and swings with a slow beat of 8 to 12 s against the grid frequency.

Each run is one pump in one condition for `seconds`. Pumps differ in pipe, sensor offsets and noise. One in fifty pressure readings is lost.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import pandas

CONDITIONS: Final = ("healthy", "cavitation", "imbalance")
LOST_FRACTION: Final = 0.02


def rows(runs: int = 60, seconds: int = 240, seed: int = 1) -> "pandas.DataFrame":
    """Signals of all runs, run by run, second by second.

    Args:
        runs: Number of runs, at least 15; conditions take turns.
        seconds: Length of each, at least 64.
        seed: Of everything random.

    Returns:
        Columns run, time_s, pressure_m, flow_rel, power_kw, vibration_mm_s, condition.

    Raises:
        ValueError: Too few runs or seconds.
    """
    import pandas

    if runs < 15 or seconds < 64:
        raise ValueError(f"runs = {runs}, seconds = {seconds}: at least 15 runs of 64 seconds are needed")
    return pandas.concat([_run(index, seconds, np.random.default_rng([seed, index])) for index in range(runs)], ignore_index=True)


def _run(index: int, seconds: int, rng: np.random.Generator) -> "pandas.DataFrame":
    import pandas

    condition = CONDITIONS[index % len(CONDITIONS)]
    at = np.arange(seconds)
    speed = 0.85 + 0.1 * np.sin(2 * np.pi * (at / rng.uniform(120, 400) + rng.random())) + rng.normal(0, 0.02)
    pipe = 16 * rng.uniform(0.8, 1.25)
    # 32 n^2 - 14 n Q = 4 + pipe Q^2, solved for Q.
    flow = (-14 * speed + np.sqrt((14 * speed) ** 2 + 4 * pipe * (32 * speed**2 - 4))) / (2 * pipe)
    flow = flow * (0.94 if condition == "cavitation" else 1.0)
    head = 32 * speed**2 - 14 * speed * flow
    vibration = 1.0 + 0.8 * speed**2
    flicker = 2.0 if condition == "cavitation" else 1.0  # of the standard deviation: four times the variance
    if condition == "imbalance":
        beat = np.sin(2 * np.pi * (at / rng.uniform(8, 12) + rng.random()))
        vibration = vibration + 1.2 * speed**2 * (0.6 + 0.4 * beat)
    offset = rng.normal(0, 1, 4)
    noise = rng.normal(0, 1, (seconds, 4))
    pressure = head + 0.3 * offset[0] + 0.25 * flicker * noise[:, 0]
    return pandas.DataFrame(
        {
            "run": f"run-{index:03d}",
            "time_s": at,
            "pressure_m": np.where(rng.random(seconds) < LOST_FRACTION, np.nan, pressure),
            "flow_rel": flow + 0.02 * offset[1] + 0.01 * noise[:, 1],
            "power_kw": 1.1 * flow * head + 6 * speed**3 + 0.2 * offset[2] + 0.15 * noise[:, 2],
            "vibration_mm_s": vibration + 0.1 * offset[3] + 0.18 * flicker * noise[:, 3],
            "condition": condition,
        }
    )
