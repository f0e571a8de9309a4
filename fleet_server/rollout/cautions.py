"""What a plan cannot do: sentences for people before they start it, and refusal of plans that could never be completed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgefleet.errors import ConfigError
from fleet_server.rollout.bounds import devices_needed, upper_bound
from fleet_server.rollout.confirming import said_of
from fleet_server.rollout.course import Course
from fleet_server.rollout.foresight import ALWAYS, Awake, WaveTime, growths
from fleet_server.rollout.judgement import DUE_OF_OPENED, OWN_SITES
from fleet_server.rollout.opening_hours import Hours, opening_with_rate_s
from fleet_server.rollout.rules import POSTERIOR_BELOW, counts_at

_UNSEEN: Final = 0.08  # a fleet in which a release at the limit shows no failure with more than this cannot prove the limit
_LATE_H: Final = 14.0  # hours: a dwell that covers a night
_HOUR_S: Final = 3_600.0


@dataclass(frozen=True)
class Selected:
    """Whom the plan is about.

    Attributes:
        devices: Selected ones, held-back ones included.
        held_back: Of them, controls.
        sites: Site -> selected devices; the empty name is for devices without one.
        awake: When they are heard, as far as it is known.
        hours: When they may begin.
    """

    devices: int
    held_back: int
    sites: Mapping[str, int]
    awake: Awake | None = None
    hours: Hours = ALWAYS


def refuse_hopeless(course: Course) -> None:
    """Refuse a plan that no release could complete.

    Raises:
        ConfigError: A wave that even a release without any failure could not pass, however often it may grow.
    """
    for number in range(1, len(course.sizes)):
        reached = list(growths(course, number))
        if all(counts_at(course.rule, size).promote < 0 for size in reached):
            size = course.sizes[number - 1]
            raise ConfigError(
                f"wave {number} reaches {size} devices (at most {reached[-1]} after it has grown) and can never be promoted: "
                f"{_why_never(course, reached[-1])}"
            )


def cautions(course: Course, selected: Selected, times: Sequence[WaveTime] = ()) -> tuple[str, ...]:
    """Sentences about what this plan cannot see, prove or finish soon; the gravest first.

    Args:
        course: Of the plan.
        selected: Whom it is about.
        times: When each wave can be done; none: as if devices might begin at any hour.
    """
    found = [
        selected.hours.caution(),
        _untried(course),
        _proves_nothing(course, selected),
        said_of(course.confirm, len(course.sizes)),
        _sites(selected),
        _rule_for_size(course),
        *_grows_first(course),
        _last_wave(course, selected),
        *_short_dwells(course),
        *_slow(course, times),
        _asleep(selected),
    ]
    return tuple(sentence for sentence in found if sentence)


def _why_never(course: Course, reach: int) -> str:
    rule = course.rule
    if rule.kind == "bound":
        needed = devices_needed(0, rule.limit, rule.confidence)
        bound = upper_bound(0, reach, rule.confidence)
        return (
            f"{reach} devices without a failure still allow {100 * bound:.3g} % failures and the limit is {100 * rule.limit:.3g} %; "
            f"let the wave have at least {needed} devices, or use evidence = 'posterior'"
        )
    return f"promote_below = {rule.promote_below:g} is stricter than {reach} devices without a failure can satisfy; raise it or the wave"


def _proves_nothing(course: Course, selected: Selected) -> str:
    limit, everybody = course.rule.limit, course.sizes[-1]
    unseen = float((1 - limit) ** everybody)
    if unseen <= _UNSEEN:
        return ""
    return (
        f"With {everybody} devices nothing can prove {100 * limit:.3g} %: a release that fails on {100 * limit:.3g} % shows no failure at "
        f"all in {100 * unseen:.0f} of 100 fleets like this. What this plan promises is few harmed devices, not detection."
    )


def _sites(selected: Selected) -> str:
    named = [site for site in selected.sites if site]
    if not named:
        return (
            "No device has a label 'site': silence is judged by all devices together, and a release that takes a whole site down cannot be "
            "told from an outage. Label devices with their site."
        )
    if len(named) == 1 and "" not in selected.sites:
        return (
            f"All devices are at one site ({named[0][:40]}): a release that takes the whole site down cannot be seen as its doing, because "
            "the controls go dark with it."
        )
    if len(named) < OWN_SITES:
        return (
            f"{len(named)} sites are too few for statistics about sites: if one goes dark within two hours of its first device, the others "
            "wait until it is back or a person decides."
        )
    return ""


def _rule_for_size(course: Course) -> str:
    everybody, kind = course.sizes[-1], course.rule.kind
    if kind == "bound" and everybody < POSTERIOR_BELOW // 2:
        return f"The rule 'bound' asks for proof, and {everybody} devices are few for that: 'posterior' pauses fewer good releases here."
    return ""


def _grows_first(course: Course) -> list[str]:
    found = []
    for number in range(1, len(course.sizes)):
        enough = next((size for size in growths(course, number) if counts_at(course.rule, size).promote >= 0), 0)
        if enough > course.sizes[number - 1]:
            found.append(f"Wave {number} must grow from {course.sizes[number - 1]} to {enough} devices before any result can promote it.")
    return found


def _last_wave(course: Course, selected: Selected) -> str:
    if selected.held_back or len(course.sizes) < 2:
        return ""
    return "Nobody is held back: in the last wave there is no control to compare silent devices with."


def _short_dwells(course: Course) -> list[str]:
    short = [number for number, dwell_s in enumerate(course.dwell_s[:-1], start=1) if dwell_s < _LATE_H * _HOUR_S]
    if not short or len(short) < len(course.dwell_s) - 1:
        return []
    longest = max(course.dwell_s[:-1]) / _HOUR_S
    return [
        f"No wave is watched for longer than {longest:.3g} h: failures that show later, for example after a night, are found "
        "only when every device has them."
    ]


def _untried(course: Course) -> str:
    everybody = course.sizes[-1]
    if len(course.sizes) > 1 or everybody == 1:
        return ""
    return (
        f"Wave 1 is all {everybody:,} devices: no few of them try the release for the others. Name smaller waves, or leave `waves` and "
        "`least_first_wave` away."
    )


def _slow(course: Course, times: Sequence[WaveTime]) -> list[str]:
    found = []
    for number in range(1, len(course.sizes) + 1):
        opening_s = times[number - 1].opening_s if times else opening_with_rate_s(course, number)
        if opening_s > course.dwell_s[number - 1] + course.stall_s:
            found.append(
                f"Wave {number} needs {opening_s / 86_400:.3g} days to open and pauses for a person after "
                f"{(course.dwell_s[number - 1] + course.stall_s) / 86_400:.3g}: raise the rate or the budget, widen the "
                "windows, or resume it then."
            )
    return found


def _asleep(selected: Selected) -> str:
    awake = selected.awake
    if awake is None:
        return "When devices are awake is not known yet: the times are those of a fleet that never sleeps."
    if max(awake.shares) < DUE_OF_OPENED:
        return (
            f"In no hour of the day more than {100 * max(awake.shares):.0f} % of the devices were heard: a wave is judged only when half "
            "of its devices had their time, so each one takes a day or more."
        )
    return ""
