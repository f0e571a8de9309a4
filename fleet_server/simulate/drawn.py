"""What is drawn before a rollout begins: hardware models, the devices on which the release fails, and the order of the waves."""

from dataclasses import dataclass

import numpy as np

from fleet_server.rollout.course import Course
from fleet_server.rollout.membership import HOLD_BACK, Candidate, members_by_wave, plan_membership
from fleet_server.rollout.plans import fitted, per_stratum
from fleet_server.rollout.policy import Policy
from fleet_server.simulate.availability import Availability
from fleet_server.simulate.cells import Ints, Mask
from fleet_server.simulate.scene import MODELS, Behaviour


@dataclass(frozen=True)
class Devices:
    """[N] hardware model of each device, and whether the release fails on it."""

    model: Ints
    bad: Mask

    @classmethod
    def draw(cls, rng: np.random.Generator, availability: Availability, behaviour: Behaviour) -> "Devices":
        """Equal generators give equal models and nested sets of failing devices, whatever the release does."""
        n = len(availability.site)
        model = rng.choice(len(MODELS), n, p=MODELS)
        luck, site_luck = rng.random(n), rng.random(availability.sites)
        if behaviour.kind == "site":
            return cls(model, site_luck[availability.site] < behaviour.failing)
        touchable = np.ones(n, bool) if behaviour.model is None else model == behaviour.model
        return cls(model, touchable & (luck < behaviour.failing))


@dataclass(frozen=True)
class Order:
    """Devices in the order in which the waves take them, the hold-back, and the waves' sizes.

    Attributes:
        devices: Of all waves; those that are enrolled later are at their places.
        held: Controls that get the release last.
        sizes: Cumulative devices of the waves, as far as they are enrolled at the start.
        wave: [M] wave of each of the devices, from 1.
    """

    devices: Ints
    held: Ints
    sizes: tuple[int, ...]
    wave: Ints

    @property
    def before_last(self) -> int:
        """How many of the devices all waves but the last take."""
        return int(np.searchsorted(self.wave, len(self.sizes))) if len(self.sizes) > 1 else 0


def order_of(salt: str, policy: Policy, course: Course, devices: Devices, availability: Availability) -> tuple[Order, Course]:
    """Membership as the server plans it for those that are there, and the course with the waves' real sizes.

    Those that are enrolled later get the wave that the plan's thresholds give them, or none if the policy says so.
    """
    joined_at = availability.joined_at
    there = np.arange(len(devices.model)) if joined_at is None else np.flatnonzero(joined_at == 0)
    candidates = _candidates(there, devices, availability)
    plan = plan_membership(salt, candidates, course.sizes, per_stratum=per_stratum(policy, len(there)), hold_back=policy.hold_back)
    waves = members_by_wave(plan, candidates)
    held = np.array(waves.pop(HOLD_BACK), dtype=np.int64)
    groups = [np.array(waves[number], dtype=np.int64) for number in sorted(waves)]
    course, plan = fitted(course, plan, [len(group) for group in groups])
    # Within a wave the names are sorted as text; batches must not follow the numbers, which go site by site.
    mixed = np.random.default_rng(int(salt.removeprefix("salt-")))
    taken = np.concatenate([mixed.permutation(group) for group in groups])
    wave = np.repeat(np.arange(1, len(course.sizes) + 1), np.diff([0, *course.sizes]))
    if joined_at is not None and policy.late_joiners == "follow":
        late = mixed.permutation(np.flatnonzero(joined_at > 0))
        theirs = np.array(
            [plan.wave_of(one.device_id, one.stratum, one.site) for one in _candidates(late, devices, availability)], np.int64
        )
        held = np.concatenate([held, late[theirs == HOLD_BACK]])
        taken, wave = np.concatenate([taken, late]), np.concatenate([wave, theirs])
        # Anywhere among those of their wave: a place is a hash, not the time of the enrolment.
        in_order = np.lexsort((mixed.random(len(taken)), wave))
        in_order = in_order[wave[in_order] != HOLD_BACK]
        taken, wave = taken[in_order], wave[in_order]
    return Order(taken, held, course.sizes, wave), course


def _candidates(which: Ints, devices: Devices, availability: Availability) -> list[Candidate]:
    site = availability.site[which]
    return [Candidate(str(i), str(model), str(at)) for i, model, at in zip(which, devices.model[which], site, strict=True)]
