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
    """Devices in the order in which the waves take them, the hold-back, and the waves' sizes."""

    devices: Ints
    held: Ints
    sizes: tuple[int, ...]


def order_of(salt: str, policy: Policy, course: Course, devices: Devices, availability: Availability) -> tuple[Order, Course]:
    """Membership as the server plans it, and the course with the waves' real sizes."""
    n = len(devices.model)
    candidates = [
        Candidate(str(i), str(model), str(site)) for i, (model, site) in enumerate(zip(devices.model, availability.site, strict=True))
    ]
    plan = plan_membership(salt, candidates, course.sizes, per_stratum=per_stratum(policy, n), hold_back=policy.hold_back)
    waves = members_by_wave(plan, candidates)
    held = np.array(waves.pop(HOLD_BACK), dtype=np.int64)
    groups = [np.array(waves[number], dtype=np.int64) for number in sorted(waves)]
    course, _ = fitted(course, plan, [len(group) for group in groups])
    # Within a wave the names are sorted as text; batches must not follow the numbers, which go site by site.
    mixed = np.random.default_rng(int(salt.removeprefix("salt-")))
    return Order(np.concatenate([mixed.permutation(group) for group in groups]), held, course.sizes), course
