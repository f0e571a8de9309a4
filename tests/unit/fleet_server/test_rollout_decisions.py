"""What the engine decided on is kept beside the action, stands in the log by its digest, and decides the same again."""

import math
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from edgefleet.errors import StorageError
from fleet_server import audit, queries
from fleet_server.queries import NotFoundError
from fleet_server.rollout import Facts, decide
from fleet_server.rollout.comparisons import COMPARISONS, Wealth
from fleet_server.rollout.replay import again, digest_of, document
from fleet_server.rollout.tally import Stratum
from fleet_server.store import decisions
from fleet_server.store.tables import DECISION, EVENT
from tests.unit.fleet_server.evidence_world import Fleet, open_fleet, start
from tests.unit.fleet_server.server_world import World, make_bundle
from tests.unit.fleet_server.steered import complete
from tests.unit.fleet_server.steered import start as start_by_name
from tests.unit.fleet_server.test_rollout_course import at, facts, started

FAST: dict[str, Any] = {"waves": ["30%", "100%"], "dwell_s": [60.0, 0.0], "pace": {"first": 20, "every_s": 20.0, "growth": 2.0}}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    yield opened
    opened.close()


def compared(known: Facts) -> Facts:
    assert known.tally is not None
    return replace(known, tally=replace(known.tally, wealth={name: Wealth.start(gate) for name, gate in COMPARISONS.items()}))


@pytest.mark.parametrize("failed", [0, 2, 8, 40])
def test_a_document_decides_what_was_decided_word_for_word(failed: int) -> None:
    rollout, known = started(), compared(facts(77, failed))

    assert again(document(rollout, known, at(60))) == decide(rollout, known, at(60)) is not None


def test_equal_facts_have_one_digest_whatever_their_order_and_other_facts_another() -> None:
    rollout, known = started(), facts(77, 2)
    assert known.tally is not None
    two = {"a": Stratum(40, 1), "b": Stratum(37, 1)}
    turned = dict(reversed(two.items()))
    first, second = (replace(known, tally=replace(known.tally, strata=strata)) for strata in (two, turned))

    assert digest_of(document(rollout, first, at(60))) == digest_of(document(rollout, second, at(60)))
    assert digest_of(document(rollout, known, at(60))) != digest_of(document(rollout, facts(77, 3), at(60)))
    assert digest_of(document(rollout, known, at(60))) != digest_of(document(rollout, known, at(61)))


def test_a_number_that_is_none_can_be_kept_and_is_not_decided_again() -> None:
    known = facts(77)
    assert known.tally is not None
    broken = replace(known, tally=replace(known.tally, quiet=replace(known.tally.quiet, missing_baseline=math.nan)))
    content = document(started(), broken, at(60))

    assert len(digest_of(content)) == 64
    with pytest.raises(StorageError, match="holds no decision"):
        again(content)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff"])
def test_what_is_no_document_is_refused(content: bytes) -> None:
    with pytest.raises(StorageError, match="holds no decision"):
        again(content)


def test_every_action_of_a_rollout_by_evidence_is_decided_again_from_what_was_kept(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    release_id = world.push(bundle)
    open_fleet(world, 60)
    fleet = Fleet(world, bundle)
    fleet.tick()
    rollout_id = start(world, release_id, **FAST)
    fleet.tick(40)

    found = queries.decisions_of(world.services.db, rollout_id)
    redecided = [queries.decision(world.services.db, rollout_id, one.version) for one in found]

    assert [one.action for one in found] == ["open-wave", "promote", "open-wave", "promote", "complete"]
    assert [one.again for one in redecided] == [one.action for one in found]
    with world.services.db.read() as connection:
        audit.verify(connection)
        rows = connection.execute(sa.select(EVENT.c.detail).where(EVENT.c.subject == rollout_id, EVENT.c.actor == "engine")).all()
        largest = connection.scalar(sa.select(sa.func.max(sa.func.length(DECISION.c.facts))))
    assert [audit.without_facts(row.detail)[1] for row in rows] == [one.facts_digest for one in found]
    assert largest is not None
    assert largest < 4_096
    shown = queries.explain(world.services.db, rollout_id, world.clock()).decided
    assert shown == found[-1]
    events = queries.rollout(world.services.db, rollout_id, world.clock()).events
    assert {one.facts for one in events if one.actor == "engine"} == {one.facts_digest for one in found}
    assert not any("[facts" in one.detail for one in events)


def test_a_rollout_that_names_its_devices_is_decided_again_too(world: World, tmp_path: Path) -> None:
    for number in range(3):
        device = world.enroll(f"d{number}", tmp_path)
        world.receive(device.presence(), device.heartbeat())
    bundle = make_bundle(tmp_path / "bundle")
    rollout_id = start_by_name(world, world.push(bundle), waves=[1, "100%"])
    complete(world, rollout_id, bundle)

    found = queries.decisions_of(world.services.db, rollout_id)

    assert [one.action for one in found] == ["open-wave", "promote", "open-wave", "promote", "complete"]
    assert all(queries.decision(world.services.db, rollout_id, one.version).again == one.action for one in found)


def test_what_was_changed_afterwards_is_noticed_and_what_was_too_large_is_said(world: World, tmp_path: Path) -> None:
    open_fleet(world, 20)
    rollout_id = start(world, world.push(make_bundle(tmp_path / "bundle")), **FAST)
    version = queries.decisions_of(world.services.db, rollout_id)[0].version
    where = DECISION.c.rollout_id == rollout_id

    for packed, problem in ((zlib.compress(b"{}"), "was changed"), (b"rubbish", "cannot be read")):
        with world.services.db.write() as connection:
            connection.execute(sa.update(DECISION).where(where).values(facts=packed))
        with pytest.raises(StorageError, match=problem):
            queries.decision(world.services.db, rollout_id, version)
    with world.services.db.write() as connection:
        connection.execute(sa.update(DECISION).where(where).values(facts=None))
    assert not queries.decisions_of(world.services.db, rollout_id)[0].kept
    with pytest.raises(NotFoundError, match="kept decision"):
        queries.decision(world.services.db, rollout_id, version)


def test_facts_that_are_too_large_leave_their_digest(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "MOST_BYTES", 100)
    open_fleet(world, 20)
    rollout_id = start(world, world.push(make_bundle(tmp_path / "bundle")), **FAST)

    found = queries.decisions_of(world.services.db, rollout_id)

    assert [one.kept for one in found] == [False]
    assert len(found[0].facts_digest) == 64


def test_a_long_sentence_is_cut_and_not_the_digest() -> None:
    assert audit.without_facts(audit.with_facts("x" * 5_000, "a" * 64)[: audit.MAX_DETAIL])[1] == "a" * 64
    assert audit.without_facts("nothing here") == ("nothing here", "")
