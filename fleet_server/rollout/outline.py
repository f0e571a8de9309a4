"""Who would be in which wave under a policy: the answer of a dry run, and of the rollout that is made after it.

The salt of the order follows from what is planned, so that the plan that a person saw and the rollout that she then creates name the same
devices; another release, policy or selection, or a second try, draws another order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from edgefleet.digests import canonical_json, sha256_hex
from fleet_server.rollout.cohorts import assign_waves
from fleet_server.rollout.course import Course
from fleet_server.rollout.membership import HOLD_BACK, PLACES, Candidate, Membership, members_by_wave, plan_membership
from fleet_server.rollout.plans import course_of, fitted, per_stratum
from fleet_server.rollout.policy import Policy, policy_digest
from fleet_server.rollout.posterior import History
from fleet_server.selection import Document

SITE: Final = "site"
DEFAULT_STRATA: Final = ("hardware", "region")


@dataclass(frozen=True)
class Outline:
    """A plan in full.

    Attributes:
        course: None under `unanimous`, which has no sizes to fit.
        membership: None likewise.
        waves: Device ids that each wave adds.
        held_back: Controls.
    """

    course: Course | None
    membership: Membership | None
    waves: tuple[tuple[str, ...], ...]
    held_back: tuple[str, ...]


def plan_salt(bundle_digest: str, policy: Policy, selection: Document, earlier: int) -> str:
    """The salt of a plan's order: 16 hex digits.

    Args:
        bundle_digest: Of the release.
        policy: Of the plan.
        selection: Its document.
        earlier: Rollouts of this release so far, so that a second try begins with other devices.
    """
    document = {"release": bundle_digest, "policy": policy_digest(policy), "selection": selection, "earlier": earlier}
    return sha256_hex(canonical_json(document))[:16]


def candidates(policy: Policy, device_ids: Sequence[str], labels: Mapping[str, Mapping[str, str]]) -> list[Candidate]:
    """Selected devices with their stratum and site, from their labels.

    Args:
        policy: Says which labels make a stratum.
        device_ids: Selected.
        labels: By device; a device without labels may be missing.
    """
    keys = DEFAULT_STRATA if policy.strata is None else policy.strata
    found = []
    for device_id in device_ids:
        own = labels.get(device_id, {})
        found.append(Candidate(device_id, stratum=" ".join(own[key] for key in keys if own.get(key)), site=own.get(SITE, "")))
    return found


def outline(policy: Policy, selected: Sequence[Candidate], salt: str, history: History | None = None) -> Outline:
    """Waves, controls and course over the devices that are selected now.

    Args:
        policy: Any.
        selected: At least one device.
        salt: Of the order.
        history: Of the project's completed rollouts, for the posterior rule.

    Raises:
        ConfigError: Nobody is selected, or nobody is left after the hold-back.
    """
    if policy.evidence == "unanimous":
        waves = assign_waves(salt, {one.device_id: {} for one in selected}, policy)
        return Outline(None, None, waves, ())
    planned = course_of(policy, len(selected), history)
    membership = plan_membership(salt, selected, planned.sizes, per_stratum=per_stratum(policy, len(selected)), hold_back=policy.hold_back)
    members = members_by_wave(membership, selected)
    added = [members[number] for number in range(1, len(planned.sizes) + 1)]
    course, kept = fitted(planned, membership, [len(devices) for devices in added])
    return Outline(course, kept, tuple(devices for devices in added if devices), members[HOLD_BACK])


def all_first(planned: Outline, selected: Sequence[Candidate], strata: Sequence[str]) -> Outline:
    """The plan with all devices of some strata in wave 1: those that have nothing to lose.

    Args:
        planned: By evidence; another one comes back as it is.
        selected: As it was planned for.
        strata: Their names.
    """
    if planned.membership is None or planned.course is None or not strata:
        return planned
    opening = planned.membership.waves[0] | dict.fromkeys(strata, PLACES)
    membership = msgspec.structs.replace(planned.membership, waves=(opening, *planned.membership.waves[1:]))
    members = members_by_wave(membership, selected)
    added = [members[number] for number in range(1, len(membership.waves) + 1)]
    course, kept = fitted(planned.course, membership, [len(devices) for devices in added])
    return Outline(course, kept, tuple(devices for devices in added if devices), members[HOLD_BACK])


def plan_seed(salt: str, sizes: Sequence[int]) -> int:
    """Seed of what is foretold of a plan: the same plan foretells the same numbers, before and after it is created."""
    return int(sha256_hex(canonical_json([salt, list(sizes)]))[:16], 16)
