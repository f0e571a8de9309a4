"""What a policy means for a fleet of so many devices: rule, waves, dwells. The measured defaults, by size."""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from edgefleet.errors import ConfigError
from fleet_server.rollout.confirming import BY_SIZE, Confirm
from fleet_server.rollout.course import Course
from fleet_server.rollout.membership import Membership
from fleet_server.rollout.policy import Policy
from fleet_server.rollout.posterior import History
from fleet_server.rollout.rules import POSTERIOR_BELOW, Rule
from fleet_server.rollout.wave_plan import planned

_HOUR_S: Final = 3600.0
_DAY_S: Final = 24 * _HOUR_S
LEAST_FIRST_WAVE: Final = 77  # by the bound: with fewer devices no count proves 5 %
MANY_DEVICES: Final = POSTERIOR_BELOW  # from here on wave 1 can spare ten devices for each stratum; small first waves would grow fivefold
# Devices of the selection below which a row of waves and dwells (hours) holds; the last wave is everybody.
SMALL_PLANS: Final = (
    (10, (1, 2, 4), (24, 12, 12, 0)),
    (30, (2, 5, 10), (24, 12, 12, 0)),
    (60, (3, 6, 12, 24), (24, 12, 12, 12, 0)),
    (200, (5, 10, 20, 40), (24, 12, 12, 12, 0)),
    (1_000, (10, 20, 40, 80, 160), (24, 14, 14, 14, 14, 0)),
    (POSTERIOR_BELOW, (10, 20, 40, 80, 200), (24, 14, 14, 14, 14, 0)),
)
_LARGE_WAVES: Final = ("1%", "5%", "25%", "100%")
_LARGE_DWELL_H: Final = (24, 12, 2, 0)
_PATIENCE_S: Final = {"bound": 4 * _HOUR_S, "posterior": 2 * _HOUR_S}


def default_policy(name: str = "by evidence") -> Policy:
    """Waves, rule and dwells by the size of the fleet; a device counts after an hour, and has two."""
    return Policy(name=name, evidence="auto", soak_s=_HOUR_S, soak_rows=0, deadline_s=2 * _HOUR_S, hold_s=_DAY_S)


def kind_of(policy: Policy, devices: int) -> Literal["bound", "posterior"]:
    """The rule for a selection of so many devices.

    Raises:
        ConfigError: The policy asks for no rule of evidence.
    """
    if policy.evidence == "auto":
        return "posterior" if devices < POSTERIOR_BELOW else "bound"
    if policy.evidence == "bound":
        return "bound"
    if policy.evidence == "posterior":
        return "posterior"
    raise ConfigError(f"evidence = {policy.evidence!r} names every device; a course is for 'bound', 'posterior' or 'auto'")


def confirm_of(policy: Policy, kind: Literal["bound", "posterior"], devices: int) -> Confirm:
    """When a person is asked: as the policy says; else by the size of the fleet where its waves are chosen by that as well.

    >>> [confirm_of(default_policy(), "posterior", devices) for devices in (9, 10, 29, 30)]
    ['first-wave-and-failure', 'failure', 'failure', 'never']
    """
    if policy.confirm is not None:
        return policy.confirm
    if policy.waves or kind == "bound":
        return "never"
    return next((confirm for below, confirm in BY_SIZE if devices < below), "never")


def course_of(policy: Policy, devices: int, history: History | None = None) -> Course:
    """The course of a rollout over a selection of so many devices, before strata and hold-back (`fitted`).

    Args:
        policy: By evidence.
        devices: Of the selection, hold-back included, at least 1.
        history: Of the project's completed rollouts, for the posterior rule.

    Raises:
        ConfigError: The policy is not by evidence, or nobody is selected.
    """
    if devices < 1:
        raise ConfigError("the selection matches no device: nothing to roll out; check its labels")
    kind = kind_of(policy, devices)
    waves, dwells = _waves(policy, kind, devices)
    default_least = LEAST_FIRST_WAVE if kind == "bound" else 1
    # Percentages are of the devices that get the release; controls get it last.
    held = round(devices * policy.hold_back.fraction) if devices >= policy.hold_back.smallest_fleet else 0
    plan = planned(waves, dwells, max(devices - held, 1), default_least if policy.least_first_wave is None else policy.least_first_wave)
    known = history or History()
    # Whoever writes the rule himself gets what he wrote, whatever happened before.
    clips = known.clips if policy.evidence == "auto" else ()
    return Course(
        rule=policy.rule.rule(kind, known),
        sizes=tuple(wave.devices for wave in plan),
        dwell_s=tuple(wave.dwell_s for wave in plan),
        pace=policy.pace,
        rate=policy.rate,
        rest_s=_rest_s(policy, kind, plan[0].dwell_s),
        patience_s=_PATIENCE_S[kind] if policy.patience_s is None else policy.patience_s,
        hold_s=policy.hold_s,
        stall_s=policy.stall_s,
        confirm=confirm_of(policy, kind, devices),
        clips=clips,
        clip_releases=known.releases if clips else 0,
    )


def default_course(devices: int, rule: Rule | None = None) -> Course:
    """The default policy's course for a fleet of so many devices.

    Args:
        devices: Of the selection.
        rule: None: the default for so many devices.
    """
    course = course_of(default_policy(), devices)
    return course if rule is None else msgspec.structs.replace(course, rule=rule)


def per_stratum(policy: Policy, devices: int) -> int:
    """Least devices of each stratum in wave 1."""
    if policy.per_stratum is not None:
        return policy.per_stratum
    return 10 if devices >= MANY_DEVICES else 2


def fitted(course: Course, membership: Membership, added: Sequence[int]) -> tuple[Course, Membership]:
    """The course with the waves' real sizes: strata may ask for more devices, the hold-back takes some away.

    A wave that would add nobody is merged into the one before (the longer dwell wins): nobody is no evidence.

    Args:
        course: As planned.
        membership: With as many waves.
        added: Devices that each wave adds.

    Raises:
        ConfigError: No wave has a device.
    """
    sizes: list[int] = []
    dwells: list[float] = []
    kept: list[dict[str, int]] = []
    for count, dwell_s, thresholds in zip(added, course.dwell_s, membership.waves, strict=True):
        if count:
            sizes.append(count + (sizes[-1] if sizes else 0))
            dwells.append(dwell_s)
            kept.append(thresholds)
        elif sizes:
            dwells[-1] = max(dwells[-1], dwell_s)
    if not sizes:
        raise ConfigError("no wave has a device: nothing to roll out; check the selection and hold_back")
    # Who joins later may lie above every threshold that is left: the last wave is everybody.
    kept[-1] = membership.waves[-1]
    changed = msgspec.structs.replace(course, sizes=tuple(sizes), dwell_s=tuple(dwells))
    return changed, msgspec.structs.replace(membership, waves=tuple(kept))


def _rest_s(policy: Policy, kind: str, dwell_s: float) -> float:
    """How long the last part of wave 1 waits: by the bound half of the dwell, and until the deadline of those before it."""
    if policy.rest_s is not None:
        return policy.rest_s
    return dwell_s / 2 + policy.deadline_s if kind == "bound" and dwell_s > 0 else 0.0


def _waves(policy: Policy, kind: str, devices: int) -> tuple[Sequence[int | str], Sequence[float]]:
    """Waves and a dwell for each, as planned: the policy's own, or those measured for a fleet of that size."""
    if policy.waves:
        return policy.waves, policy.dwell_s if isinstance(policy.dwell_s, tuple) else (policy.dwell_s,) * len(policy.waves)
    waves: Sequence[int | str] = _LARGE_WAVES
    hours: Sequence[float] = _LARGE_DWELL_H
    if kind == "posterior":
        _, counts, hours = next((row for row in SMALL_PLANS if devices < row[0]), SMALL_PLANS[-1])
        below = tuple(count for count in counts if count < devices)
        # Of waves that a small fleet cannot fill, everybody's has no dwell.
        waves, hours = (*below, "100%"), (*hours[: len(below)], 0)
    own = policy.dwell_s if isinstance(policy.dwell_s, float) and policy.dwell_s else None
    return waves, tuple((_HOUR_S * hour if own is None else own) if number < len(waves) else 0.0 for number, hour in enumerate(hours, 1))
