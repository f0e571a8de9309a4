"""Many rollouts of the same kind: what they harm, when they stop, and how often a good release is held up."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgefleet.errors import ConfigError
from fleet_server.rollout.policy import Policy
from fleet_server.simulate.models import ModelChange
from fleet_server.simulate.reference import Reference, simulate_reference
from fleet_server.simulate.run import DAYS, MOST_DAYS, Outcome, simulate
from fleet_server.simulate.scene import BEHAVIOURS, SCENES, Behaviour, Scene

MOST_RUNS: Final = 100_000
_APART: Final = MOST_RUNS  # so that the runs of two seeds are different ones
_KINDS: Final = ("prompt", "late", "dark", "site")


@dataclass(frozen=True)
class Summary:
    """Outcomes of one policy and one release.

    Attributes:
        harmed_median: Devices on which the release failed.
        harmed_p95: The same, exceeded in one of twenty runs.
        exposed_median: Devices that began.
        stopped: Share of the runs that were aborted, paused, or stuck until the days were over.
        how: The same by kind.
        halt_h: Median hours until a stopped run stopped; None: none was.
        done_h: Median hours until a run that was not stopped was completed; None: none was.
    """

    policy: str
    release: str
    runs: int
    harmed_median: float
    harmed_p95: float
    exposed_median: float
    stopped: float
    how: dict[str, float]
    halt_h: float | None
    done_h: float | None


def seed_of(seed: int, run: int) -> int:
    """Seed of the fleet of one run of a study."""
    return seed * _APART + run


def study(
    policies: Mapping[str, Policy | Reference],
    behaviours: Sequence[Behaviour],
    scene: Scene,
    *,
    devices: int,
    runs: int,
    seed: int,
    days: int = DAYS,
    change: ModelChange | None = None,
    answer_s: float = 0.0,
    told: Callable[[int], None] = lambda done: None,
) -> Iterator[Summary]:
    """Every policy with every release, over the same fleets.

    Args:
        policies: Name -> ours, or another system's.
        behaviours: Releases.
        scene: Availability.
        devices: Of the selection.
        runs: Of each.
        seed: Equal seeds give equal numbers.
        days: At most, per run.
        change: What the releases' model does, as in `simulate`; other systems do not look.
        answer_s: After so long a person confirms what a policy of ours asks her about.
        told: Called after each rollout with how many are done.

    Raises:
        ConfigError: Numbers outside their limits.
    """
    if not 0 <= answer_s <= MOST_DAYS * 86_400:
        raise ConfigError(f"a person who answers after {answer_s:g} s cannot be simulated; choose 0 s to {MOST_DAYS} days")
    if not 1 <= runs <= MOST_RUNS:
        raise ConfigError(f"{runs} runs are outside 1 to {MOST_RUNS}")
    if seed < 0:
        raise ConfigError(f"seed {seed} is negative; choose 0 or more")
    found: dict[tuple[str, str], list[Outcome]] = {(name, one.name): [] for one in behaviours for name in policies}
    done = 0
    # Runs outermost: one fleet serves all policies and releases.
    for run in range(runs):
        for behaviour in behaviours:
            for name, policy in policies.items():
                found[name, behaviour.name].append(_one(policy, behaviour, scene, devices, seed_of(seed, run), days, change, answer_s))
                done += 1
                told(done)
    for (name, release), outcomes in found.items():
        yield summed_up(name, release, outcomes)


def summed_up(policy: str, release: str, outcomes: Sequence[Outcome]) -> Summary:
    """The numbers of a row of outcomes, at least one."""
    harmed = [one.harmed for one in outcomes]
    how = Counter(one.stopped for one in outcomes if one.stopped)
    halt = [one.hours for one in outcomes if one.stopped]
    done = [one.hours for one in outcomes if not one.stopped]
    return Summary(
        policy=policy,
        release=release,
        runs=len(outcomes),
        harmed_median=float(np.median(harmed)),
        harmed_p95=float(np.quantile(harmed, 0.95)),
        exposed_median=float(np.median([one.exposed for one in outcomes])),
        stopped=len(halt) / len(outcomes),
        how={kind: how[kind] / len(outcomes) for kind in ("aborted", "paused", "stuck")},
        halt_h=float(np.median(halt)) if halt else None,
        done_h=float(np.median(done)) if done else None,
    )


def scene_named(name: str) -> Scene:
    """A scene by its name, spaces or hyphens.

    Raises:
        ConfigError: There is none of that name.
    """
    scene = SCENES.get(name.replace("-", " "))
    if scene is None:
        raise ConfigError(f"scene {name[:40]!r} is unknown; known: {', '.join(known.replace(' ', '-') for known in SCENES)}")
    return scene


def behaviour_named(text: str) -> Behaviour:
    """A release: one of `BEHAVIOURS`, or `SHARE[:KIND[:HOURS]]`.

    Raises:
        ConfigError: Neither.

    >>> behaviour_named("0.1:late:12").delay_h
    12.0
    >>> behaviour_named("0.1:dark:0.5").delay_h
    0.5
    """
    if text in BEHAVIOURS:
        return BEHAVIOURS[text]
    share, _, rest = text.partition(":")
    kind, _, hours = rest.partition(":")
    expected = f"expected SHARE[:KIND[:HOURS]] like 0.1:late:12, with KIND of {', '.join(_KINDS)}, or one of: {', '.join(BEHAVIOURS)}"
    if kind not in ("", *_KINDS) or (hours and kind not in ("late", "dark")):
        raise ConfigError(f"release {text[:40]!r}: {expected}")
    try:
        failing, delay_h = float(share), float(hours or (12 if kind == "late" else 0))
    except ValueError as err:
        raise ConfigError(f"release {text[:40]!r}: {expected}") from err
    return Behaviour(text, failing, kind or "prompt", delay_h)  # type: ignore[arg-type]  # one of _KINDS


def _one(
    policy: Policy | Reference,
    behaviour: Behaviour,
    scene: Scene,
    devices: int,
    seed: int,
    days: int,
    change: ModelChange | None,
    answer_s: float,
) -> Outcome:
    if isinstance(policy, Policy):
        return simulate(devices, scene, behaviour, seed, policy=policy, days=days, change=change, answer_s=answer_s)
    return simulate_reference(devices, scene, behaviour, seed, policy, days=days)
