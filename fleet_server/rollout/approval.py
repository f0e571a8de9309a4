"""Approval by n of m people, bound to one plan: who approved something else has approved nothing.

The plan is the policy, the selection, the release, who is in which wave, and the state of the rollouts that its start would end. If one of
these moves after an approval, the approval counts no more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from edgefleet.digests import canonical_json, sha256_hex
from fleet_server.rollout.model import Rollout
from fleet_server.rollout.policy import policy_digest
from fleet_server.rollout.transitions import RolloutState
from fleet_server.selection import Document

MAY_APPROVE: Final = frozenset({"operator", "admin"})
_WORDS: Final[Mapping[str, str]] = {
    "policy": "the policy",
    "selection": "the selection",
    "release": "the release",
    "membership": "who is in which wave",
    "supersedes": "the rollout that it supersedes",
    "experiment": "the plan of the experiment",
}


@dataclass(frozen=True)
class Superseded:
    """A rollout that the start would end, as it stands."""

    rollout_id: str
    state: str
    wave: int
    version: int

    def said(self) -> str:
        """In words."""
        return f"{self.rollout_id} is {self.state} in wave {self.wave} (version {self.version})"


@dataclass(frozen=True)
class Approval:
    """One person's word.

    Attributes:
        digest: Of the plan that was approved.
        parts: Of that plan.
    """

    approver: str
    digest: str
    approved_at: datetime
    note: str
    parts: Mapping[str, str]


@dataclass(frozen=True)
class Standing:
    """Where the approvals of a plan stand.

    Attributes:
        digest: Of the plan as it is now.
        needed: Approvals that the policy asks for.
        valid: People whose approval counts.
        outdated: People who approved what the plan was before.
        missing: What is missing, in a sentence; empty when nothing is.
    """

    digest: str
    needed: int
    valid: tuple[str, ...]
    outdated: tuple[str, ...]
    missing: str


def approvers(count: int) -> str:
    """So many people who may approve, in words."""
    return "1 operator or admin" if count == 1 else f"{count} operators or admins"


def needs_approval(rollout: Rollout) -> str:
    """Who must approve before a draft can start, in a sentence; empty where nobody must, and once they have."""
    count = rollout.policy.approvals
    if not count or rollout.state is not RolloutState.DRAFT:
        return ""
    return f"{approvers(count)} other than {rollout.created_by} must approve it first."


def plan_parts(
    rollout: Rollout, selection: Document, *, membership: object = None, superseded: Sequence[Superseded] = ()
) -> dict[str, str]:
    """The parts of a plan, each as a digest or as words; equal plans have equal parts.

    Args:
        rollout: As planned.
        selection: Its document.
        membership: Salted thresholds of a rollout by evidence, as builtins; None: the waves name every device.
        superseded: What the start would end.
    """
    named = [sorted(wave) for wave in rollout.waves]
    # Only where there is one, so that a rollout's plan keeps its digest.
    experiment = {} if rollout.experiment is None else {"experiment": sha256_hex(canonical_json(msgspec.to_builtins(rollout.experiment)))}
    return experiment | {
        "policy": policy_digest(rollout.policy),
        "selection": sha256_hex(canonical_json([selection] if isinstance(selection, str) else selection)),
        "release": sha256_hex(canonical_json([rollout.project, rollout.release_id, rollout.bundle_digest, rollout.release_counter])),
        "membership": sha256_hex(canonical_json([rollout.salt, named, membership])),
        "supersedes": "; ".join(one.said() for one in sorted(superseded, key=lambda one: one.rollout_id)) or "nothing",
    }


def plan_digest(parts: Mapping[str, str]) -> str:
    """What an approval names."""
    return sha256_hex(canonical_json(dict(parts)))


def what_changed(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Which parts of a plan differ, in words."""
    changed = [name for name in _WORDS if before.get(name) != now.get(name)]
    if not changed:
        return "nothing"
    details = f" ({before.get('supersedes', '')}; now {now.get('supersedes', '')})" if "supersedes" in changed else ""
    return ", ".join(_WORDS[name] for name in changed) + details


def standing(rollout: Rollout, parts: Mapping[str, str], approvals: Sequence[Approval]) -> Standing:
    """Where the approvals of a rollout stand.

    Args:
        rollout: As planned.
        parts: Of its plan as it is now.
        approvals: All that were ever given for it.
    """
    digest, needed = plan_digest(parts), rollout.policy.approvals
    # The creator's own word never counts, whoever stored it.
    counted = [one for one in approvals if one.approver != rollout.created_by]
    valid = tuple(sorted({one.approver for one in counted if one.digest == digest}))
    outdated = tuple(sorted({one.approver for one in counted} - set(valid)))
    return Standing(digest, needed, valid, outdated, _missing(rollout, needed, valid, outdated, counted, parts))


def refusal(rollout: Rollout, state: Standing, approver: str, role: str) -> str:
    """Why somebody may not approve this plan, empty when he may."""
    if role not in MAY_APPROVE:
        return f"{approver} is {role}; approving needs operator or admin"
    if approver == rollout.created_by:
        return f"{approver} planned rollout {rollout.rollout_id}; somebody else must approve it"
    if state.needed == 0:
        return f"the policy of rollout {rollout.rollout_id} asks for no approval"
    if approver in state.valid:
        return f"{approver} has approved this plan already; each person counts once"
    return ""


def _missing(
    rollout: Rollout, needed: int, valid: Sequence[str], outdated: Sequence[str], given: Sequence[Approval], parts: Mapping[str, str]
) -> str:
    if len(valid) >= needed:
        return ""
    sentence = f"{len(valid)} of {needed} approvals are there"
    sentence += f" ({', '.join(valid)})" if valid else ""
    sentence += f"; missing: {needed - len(valid)} from operators or admins other than {rollout.created_by}"
    if outdated:
        newest = max((one for one in given if one.approver in outdated), key=lambda one: one.approved_at)
        changed = what_changed(newest.parts, parts)
        sentence += f"; {', '.join(outdated)} approved an older plan, and since then changed: {changed}: approve again"
    return sentence
