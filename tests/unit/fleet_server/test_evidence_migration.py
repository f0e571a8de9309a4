"""A database made before there were rollouts by evidence: its rollouts can be read, steered, and are not summed."""

from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from fleet_server.rollout import Rollout, policy_digest
from fleet_server.store import Database, evidence_tally, facts, members, migrate, rollouts
from tests.unit.fleet_server.rollout_world import NEW, T0, draft

OLD_KEYS = (
    "rollout_id", "project", "release_id", "bundle_digest", "release_counter", "state", "waves", "wave", "opened_at", "promoted_at",
    "policy", "salt", "created_at", "created_by", "hold_since", "last_reason", "changed_at", "paused_for", "accepted",
)  # fmt: skip
OLD_POLICY = (
    "name",
    "waves",
    "soak_s",
    "soak_rows",
    "deadline_s",
    "hold_s",
    "evidence",
    "dwell_s",
    "approvals",
    "on_abort",
    "trial",
    "notes",
)


def as_it_was(rollout: Rollout) -> dict[str, Any]:
    document = msgspec.json.decode(msgspec.json.encode(rollout))
    document["policy"] = {key: document["policy"][key] for key in OLD_POLICY}
    return {key: document[key] for key in OLD_KEYS}


def old_database(folder: Path, rollout: Rollout) -> None:
    """At the revision before, with one rollout of eight devices."""
    folder.mkdir()
    engine = sa.create_engine(f"sqlite:///{folder / 'fleet.db'}")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, "0005")
        release = {"id": rollout.release_id, "digest": NEW}
        connection.execute(
            sa.text(
                "INSERT INTO release (release_id, project, version, counter, bundle_digest, manifest, gates, size_bytes, note, created_at,"
                " created_by) VALUES (:id, 'digits', '2', 2, :digest, x'', '[]', 0, '', 0, 'x')"
            ),
            release,
        )
        document = as_it_was(rollout)
        row = {"engine": msgspec.json.encode(document).decode(), "policy": msgspec.json.encode(document["policy"]).decode()}
        connection.execute(
            sa.text(
                "INSERT INTO rollout (rollout_id, project, release_id, state, engine, policy, policy_digest, selection, created_at,"
                " created_by, version) VALUES ('r-1', 'digits', :id, 'draft', :engine, :policy, :digest, '{}', 0, 'x', 1)"
            ),
            row | {"id": rollout.release_id, "digest": policy_digest(rollout.policy)},
        )
        for number, wave in enumerate(rollout.waves, start=1):
            for device_id in wave:
                connection.execute(
                    sa.text(
                        "INSERT INTO device (device_id, project, public_key, enrolled_at, enrolled_by) VALUES (:d, 'digits', '', 0, 'x')"
                    ),
                    {"d": device_id},
                )
                connection.execute(
                    sa.text(
                        "INSERT INTO rollout_member (rollout_id, device_id, project, wave, active) VALUES ('r-1', :d, 'digits', :wave, 1)"
                    ),
                    {"d": device_id, "wave": number},
                )
    engine.dispose()


def test_a_rollout_of_an_older_database_goes_on_as_it_was(tmp_path: Path) -> None:
    rollout = draft()
    old_database(tmp_path / "data", rollout)

    db = Database.open(tmp_path / "data")

    with db.write() as connection:
        stored = rollouts.load(connection, "r-1")
        assert stored is not None
        assert stored.rollout == rollout
        assert policy_digest(stored.rollout.policy) == stored.policy_digest
        assert len(facts.read(connection, stored.rollout, T0).devices) == 8
        (member,) = members.of_device(connection, rollout.waves[0][0], "digits")
        members.note_assigned(connection, "r-1", member.device_id, None, 5, 1)
        members.note_began(connection, member, 2)
        members.note_failed(connection, member, 3, "it failed")
        assert evidence_tally.by_wave(connection, "r-1") == {}
    db.close()
