"""Invariants that are judged after each commit of any process, and at each message that the broker takes."""

import hashlib
from collections import Counter
from itertools import pairwise
from typing import Final

import msgspec

from fleet_server.audit import GENESIS
from fleet_server.rollout import ActionKind, Event, Rollout, RolloutState
from fleet_server.rollout.policy import plan_waves
from tests.properties.rollout_fleet.evidence import dwell_s, open_members, unproven
from tests.properties.rollout_fleet.kept import COMMIT_CHECKS, keeps, require
from tests.properties.rollout_fleet.seen import Assigned, Entry, Seen, opened
from tests.properties.rollout_fleet.stage import Stage

FORWARD: Final = frozenset({RolloutState.RUNNING, RolloutState.SOAKING})
STOPPED: Final = frozenset({RolloutState.ABORTED, RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK, RolloutState.PAUSED_RB})
ENGINE: Final = "engine"
CHANGES: Final = frozenset({"create", "approve", "lose-device", *(kind.value for kind in ActionKind), *(event.value for event in Event)})


def judge_commit(stage: Stage, before: Seen, now: Seen) -> None:
    """All of them."""
    for check in COMMIT_CHECKS:
        check(stage, before, now)


def newly(before: Seen, now: Seen) -> dict[str, Assigned]:
    """Assignments that this commit made."""
    return {device_id: one for device_id, one in now.assigned.items() if before.assigned.get(device_id) != one}


def forward(before: Seen, now: Seen) -> dict[str, tuple[Assigned, Rollout]]:
    """Devices that this commit asked to run the release of a rollout."""
    found = {}
    for device_id, one in newly(before, now).items():
        rollout = now.rollouts.get(one.rollout_id)
        if rollout is not None and rollout.release_id == one.release_id:
            found[device_id] = (one, rollout)
    return found


def changed(before: Seen, now: Seen) -> list[tuple[Rollout, Rollout]]:
    """Rollouts whose value this commit replaced."""
    return [(before.rollouts[r], one) for r, one in now.rollouts.items() if r in before.rollouts and one is not before.rollouts[r]]


def added_entries(before: Seen, now: Seen) -> tuple[Entry, ...]:
    """Lines that this commit wrote into the log."""
    return now.entries[len(before.entries) :]


@keeps(1, "commit", "fleet_server.rollout.outlook:wants", "fleet_server.scheduler.steering:sync_desired")
def nobody_outside_the_open_waves_is_asked(stage: Stage, before: Seen, now: Seen) -> None:
    """No device outside the open waves (plus extensions) ever has the new digest as desired."""
    for device_id, (one, rollout) in forward(before, now).items():
        row = now.members.get((one.rollout_id, device_id))
        require(1, row is not None and row.wave <= rollout.wave, f"{device_id} was asked while wave {rollout.wave} was open: {row}")
        require(1, one.bundle_digest == rollout.bundle_digest, f"{device_id} was asked for another bundle than the rollout's")


@keeps(3, "commit", "fleet_server.rollout.engine:apply", "fleet_server.store.rollouts:save")
def open_waves_only_grow(stage: Stage, before: Seen, now: Seen) -> None:
    """Open waves only grow; the members of wave i are a subset of wave i + 1 (nesting), whatever joins or leaves."""
    for old, new in changed(before, now):
        require(3, new.wave in (old.wave, old.wave + 1), f"{new.rollout_id} went from wave {old.wave} to {new.wave}")
        require(3, len(new.promoted_at) >= len(old.promoted_at), f"{new.rollout_id} forgot a promotion")
        rows, earlier = now.members_of(new.rollout_id), before.members_of(new.rollout_id)
        # Who was asked stays; a growth only lets others come earlier, and who was never asked may leave the selection.
        gone = [d for d, row in earlier.items() if row.counter is not None and (d not in rows or not 1 <= rows[d].wave <= row.wave)]
        later = [d for d, row in rows.items() if d in earlier and row.wave > earlier[d].wave]
        require(3, not gone and not later, f"{new.rollout_id}: {gone} left the open waves, {later} were put off")
        counted = Counter(d for wave in new.waves for d in wave)
        require(3, max(counted.values(), default=1) == 1, f"{new.rollout_id}: a device is in two waves")


@keeps(4, "commit", "fleet_server.rollout.cohorts:assign_waves", "fleet_server.rollout.membership:Membership")
def membership_follows_from_salt_device_and_plan(stage: Stage, before: Seen, now: Seen) -> None:
    """Membership depends only on (rollout salt, device id, stratum, plan): same answer in any process, any order, after restart."""
    for rollout_id, one in now.rollouts.items():
        if rollout_id in before.rollouts or one.course is not None:
            continue
        if stage.eye.value("SELECT count(*) FROM rollout_link WHERE rollout_id = ?", rollout_id):
            continue  # a fix, or what supersedes another one, begins with the devices that those harmed
        rows = now.members_of(rollout_id)
        ranks = {d: hashlib.sha256(f"{one.salt}|{d}".encode()).digest() for d in rows}
        ends = [wave.devices for wave in plan_waves(one.policy, len(rows))]
        places = {d: place for place, d in enumerate(sorted(rows, key=lambda d: ranks[d]))}
        wrong = [d for d, row in rows.items() if row.wave != 1 + sum(places[d] >= end for end in ends)]
        require(4, not wrong and set(places) == {d for wave in one.waves for d in wave}, f"{rollout_id}: {wrong} are in other waves")


@keeps(5, "commit", "fleet_server.rollout.gates:evaluate", "fleet_server.rollout.engine:apply")
def a_wave_opens_only_after_a_stored_promotion(stage: Stage, before: Seen, now: Seen) -> None:
    """Wave i + 1 opens only after a stored PROMOTE of wave i whose facts, recomputed, give PROMOTE."""
    for old, new in changed(before, now):
        if new.wave > old.wave:
            require(5, len(old.promoted_at) == old.wave, f"wave {new.wave} opened after {len(old.promoted_at)} stored promotions")
        if len(new.promoted_at) > len(old.promoted_at) and new.course is None:
            at = stage.clock()
            require(5, len(new.promoted_at) == old.wave, f"promotion {len(new.promoted_at)} was stored in wave {old.wave}")
            without = unproven(stage, now, old, open_members(now, old), at)
            require(5, not without, f"wave {old.wave} was promoted without {without}")
            open_s = (at - old.opened_at[-1]).total_seconds()
            require(5, open_s >= dwell_s(old, old.wave), f"wave {old.wave} was promoted after {open_s} s")


@keeps(6, "commit", "fleet_server.rollout.outlook:wants", "fleet_server.rollout.transitions:TRANSITIONS")
def nobody_is_asked_after_a_stop(stage: Stage, before: Seen, now: Seen) -> None:
    """After ABORT, PAUSE or expiry of approval no further device receives the new digest, until RESUME or CONFIRM by a human,
    nor past wave 1 before one where the policy asks for it.
    """
    for device_id, (_, rollout) in forward(before, now).items():
        require(6, rollout.state in FORWARD, f"{device_id} was asked while the rollout is {rollout.state.value}")
        require(6, not before.halted, f"{device_id} was asked while the fleet is halted")
    people = {entry.subject for entry in added_entries(before, now) if entry.actor != ENGINE}
    for old, new in changed(before, now):
        asked = new.course is not None and "first-wave" in new.course.confirm and len(new.course.sizes) > 1
        if asked and len(new.promoted_at) > len(old.promoted_at):
            let_go = [e for e in now.entries if e.subject == new.rollout_id and e.action in ("confirm", "resume") and e.actor != ENGINE]
            require(6, bool(let_go), f"{new.rollout_id}: wave {old.wave} was promoted, and the person whom its policy asks was not")
        went_on = old.state not in FORWARD and new.state in FORWARD
        require(6, not went_on or new.rollout_id in people, f"{new.rollout_id} went from {old.state.value} to {new.state.value} by itself")


@keeps(12, "commit", "fleet_server.rollout.gates:evaluate", "fleet_server.rollout.judgement:judge")
def nobody_is_no_evidence(stage: Stage, before: Seen, now: Seen) -> None:
    """An empty wave, n = 0, or all members offline never yields PROMOTE, nor "100 %"."""
    for old, new in changed(before, now):
        if len(new.promoted_at) > len(old.promoted_at) and new.course is None:
            added = [d for d in old.waves[old.wave - 1] if d not in old.accepted]
            proven = len(added) - len(unproven(stage, now, old, added, stage.clock()))
            require(12, proven > 0, f"wave {old.wave} was promoted on {proven} of {len(old.waves[old.wave - 1])} devices")


@keeps(13, "commit", "fleet_server.store.members:note_failed", "fleet_server.rollout.evidence:progress")
def what_was_seen_once_stays_counted(stage: Stage, before: Seen, now: Seen) -> None:
    """(Devices with an E or S event) + ok + unproven + pending = exposed; k_E <= n, k_S <= n; exposed, k_E, k_S never decrease."""
    left = {entry.subject for entry in added_entries(before, now) if entry.action in ("remove", "relabel")}
    for key, row in before.members.items():
        after = now.members.get(key)
        if after is None and row.counter is None and key[1] in left:
            continue  # who was never asked is no evidence
        for column in ("began_at", "failed_at", "committed_at", "attested_at"):
            kept = getattr(row, column) is None or (after is not None and getattr(after, column) == getattr(row, column))
            require(13, kept, f"{key}: {column} was {getattr(row, column)} and is {after and getattr(after, column)}")
        require(13, after is not None and after.rows >= row.rows, f"{key}: rows went from {row.rows} to {after and after.rows}")
    for key, row in now.members.items():
        asked = row.counter is not None
        require(
            13, asked or (row.began_at, row.failed_at, row.committed_at) == (None, None, None), f"{key}: an outcome before it was asked"
        )


@keeps(14, "commit", "fleet_server.rollout.engine:decide", "fleet_server.rollout.transitions:TRANSITIONS")
def an_abort_is_never_taken_back(stage: Stage, before: Seen, now: Seen) -> None:
    """The evidence is recomputable from stored facts; once it reaches the limit the rollout is aborted after the same tick.

    It never leaves {aborted, rolling back, rolled back} by itself. (The tick is judged by `judge_tick`.)
    """
    for old, new in changed(before, now):
        require(14, old.state not in STOPPED or new.state in STOPPED, f"{new.rollout_id}: {old.state.value} became {new.state.value}")
    engine_aborts = [entry.subject for entry in added_entries(before, now) if (entry.actor, entry.action) == (ENGINE, "abort")]
    for rollout_id in engine_aborts:
        require(14, now.rollouts[rollout_id].state in STOPPED, f"{rollout_id} was aborted and is {now.rollouts[rollout_id].state.value}")


@keeps(20, "commit", "fleet_server.audit:record", "fleet_server.scheduler.steering:note_action")
def every_change_has_one_record(stage: Stage, before: Seen, now: Seen) -> None:
    """Every state change has exactly one audit record with cause and actor; the hash chain verifies."""
    entries = [entry for entry in added_entries(before, now) if entry.subject_kind == "rollout" and entry.action in CHANGES]
    written, engine = Counter(e.subject for e in entries), Counter(e.subject for e in entries if e.actor == ENGINE)
    for rollout_id, version in now.versions.items():
        versions = version - before.versions.get(rollout_id, 0)
        # What a person does is on record even where it changes nothing, as a second start.
        joined = (
            versions == 1 and written[rollout_id] == 0 and _same_standing(before.rollouts.get(rollout_id), now.rollouts.get(rollout_id))
        )
        exact = joined or (written[rollout_id] == 1 if versions == 1 else versions == engine[rollout_id] == 0)
        require(20, exact, f"{rollout_id}: {versions} changes, records: {[e.action for e in entries]}")
    previous = before.entries[-1].hash if before.entries else GENESIS
    for entry in added_entries(before, now):
        link = hashlib.sha256(msgspec.json.encode([previous, *entry[:-1]])).hexdigest()
        require(20, entry.hash == link and bool(entry.actor), f"entry {entry.seq} breaks the chain or has no actor")
        require(20, bool(entry.detail) or entry.actor != ENGINE, f"entry {entry.seq} ({entry.action}) has no cause")
        previous = entry.hash


def _same_standing(old: Rollout | None, new: Rollout | None) -> bool:
    """Whether only sizes or clocks differ: the record of that is the enrolment's, or the one of the end of a halt."""
    if old is None or new is None:
        return False
    return (old.state, old.wave, len(old.promoted_at), old.accepted) == (new.state, new.wave, len(new.promoted_at), new.accepted)


@keeps(21, "publish", "fleet_server.store.outbox:put", "fleet_server.scheduler.relay:Relay")
def saved_before_it_is_published(stage: Stage, device_id: str, payload: bytes) -> None:
    """Save before publish: for each published desired there is a stored action; after a crash replay publishes the same message."""
    if not payload:
        gone = any((entry.action, entry.subject) == ("remove", device_id) for entry in stage.seen.entries)
        require(21, gone, f"the desired state of {device_id} was taken away, and nobody removed it")
        return
    document = opened(payload)
    # A connection of its own: what another one has not committed is not there.
    known = stage.history.get((device_id, document.counter))
    require(21, known == payload, f"{device_id}: counter {document.counter} was published and never committed like that")
    for model in document.models.values():
        actions = [entry for entry in stage.seen.entries if entry.subject == model.rollout]
        require(21, bool(actions), f"{device_id}: {model.rollout} was published without a stored action")


@keeps(22, "commit", "fleet_server.store.assignments:assign")
def counters_only_rise(stage: Stage, before: Seen, now: Seen) -> None:
    """The desired counter of a device strictly increases; no two different digests share a counter."""
    for device_id, issued in now.issued.items():
        old = before.issued.get(device_id)
        if old == issued:
            continue
        require(22, old is None or issued.counter > old.counter, f"{device_id}: a new document under counter {issued.counter}")
        known = stage.history.setdefault((device_id, issued.counter), issued.message)
        require(22, known == issued.message, f"{device_id}: two documents share counter {issued.counter}")
        require(22, opened(issued.message).counter == issued.counter, f"{device_id}: the document says another counter than its row")
    falling = [d for d, counter in before.counters.items() if now.counters.get(d, 0) < counter]
    require(22, not falling, f"the counters of {falling} fell")


@keeps(25, "commit", "fleet_server.rollout.engine:decide", "fleet_server.rollout.engine:apply")
def time_never_runs_backward_for_decisions(stage: Stage, before: Seen, now: Seen) -> None:
    """Time never moves backward for decisions: a `now` smaller than the last one changes nothing."""
    decided = {entry.subject for entry in added_entries(before, now) if entry.actor == ENGINE}
    for old, new in changed(before, now):
        if old.changed_at is not None and new.changed_at is not None:
            require(25, new.changed_at >= old.changed_at, f"{new.rollout_id} changed at {new.changed_at} after {old.changed_at}")
            early = new.rollout_id in decided and stage.clock() < old.changed_at
            require(25, not early, f"the engine decided at {stage.clock()}, the last change was at {old.changed_at}")
        times = [*new.opened_at, *new.promoted_at]
        require(25, all(a <= b for row in (new.opened_at, new.promoted_at) for a, b in pairwise(row)), f"times out of order: {times}")


@keeps(27, "commit", "fleet_server.store.tables_plan:ROLLOUT_MEMBER", "fleet_server.usecases:create_rollout")
def one_rollout_owns_a_device(stage: Stage, before: Seen, now: Seen) -> None:
    """At most one rollout owns a device; after supersede the older publishes nothing more to it."""
    owners = Counter(device_id for (_, device_id), row in now.members.items() if row.active)
    require(27, max(owners.values(), default=0) <= 1, f"two rollouts own {[d for d, n in owners.items() if n > 1]}")
    for device_id, one in newly(before, now).items():
        rows = (before.members.get((one.rollout_id, device_id)), now.members.get((one.rollout_id, device_id)))
        owned = any(row is not None and row.active for row in rows)
        require(27, owned, f"{device_id} is told something by {one.rollout_id}, which does not own it")


@keeps(28, "commit", "fleet_server.rollout.engine:decide")
def completed_means_everybody_is_there(stage: Stage, before: Seen, now: Seen) -> None:
    """COMPLETED implies: every reachable non-hold-back member committed, quarantined, excluded or decommissioned, last wave promoted."""
    for old, new in changed(before, now):
        if new.state is RolloutState.COMPLETED and old.state is not RolloutState.COMPLETED and new.course is None:
            require(28, new.all_promoted, f"{new.rollout_id} is completed after {len(new.promoted_at)} of {len(new.waves)} promotions")
            everybody = set(now.members_of(new.rollout_id))
            require(28, set(open_members(now, new)) == everybody, f"{new.rollout_id} is completed before all its waves were open")
            without = unproven(stage, now, new, everybody, stage.clock())
            require(28, not without, f"{new.rollout_id} is completed without {without}")
