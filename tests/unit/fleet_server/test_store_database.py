"""The database: no lost update, one schema, a log that shows tampering, files that are whole."""

import hashlib
import io
import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from edgefleet.errors import ArtifactError, ConfigError, InputError, StorageError
from fleet_server import audit
from fleet_server.config import ServerConfig
from fleet_server.enroll.credentials import give_password
from fleet_server.queries.errors import NotFoundError
from fleet_server.releases.blobs import BlobStore
from fleet_server.store import Database
from fleet_server.store.moments import from_micros, to_micros
from fleet_server.store.tables import DEVICE_LABEL, EVENT, METADATA, TALLY


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(tmp_path)
    yield opened
    opened.close()


def test_the_migrations_make_exactly_the_tables_that_the_code_uses(db: Database) -> None:
    with db.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_opening_again_keeps_what_is_there(db: Database, tmp_path: Path) -> None:
    with db.write() as connection:
        connection.execute(sa.insert(TALLY).values(name="kept", count=3))
    again = Database.open(tmp_path)

    with again.read() as connection:
        assert connection.scalar(sa.select(TALLY.c["count"])) == 3
    again.close()


@pytest.mark.parametrize(("rounds", "folders"), [(5, 1), (1, 4)], ids=["on one folder", "each on a folder of its own"])
def test_starts_at_once_make_one_schema_in_each_folder(tmp_path: Path, rounds: int, folders: int) -> None:
    failures: list[BaseException] = []
    together = threading.Barrier(8)

    def start(data: Path) -> None:
        together.wait()
        try:
            Database.open(data).close()
        except BaseException as err:
            failures.append(err)

    for number in range(rounds):
        threads = [threading.Thread(target=start, args=(tmp_path / f"data-{number}-{which % folders}",)) for which in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert failures == []


def test_a_file_that_another_holds_while_its_mode_changes_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = sqlite3.connect(tmp_path / "fleet.db", isolation_level=None)
    holder.execute("CREATE TABLE other (n INTEGER)")
    holder.execute("BEGIN IMMEDIATE")
    refusals: list[float] = []

    def let_go_after_two(seconds: float) -> None:
        refusals.append(seconds)
        if len(refusals) == 2:
            holder.close()

    monkeypatch.setattr("fleet_server.store.database.time.sleep", let_go_after_two)
    opened = Database.open(tmp_path)

    assert len(refusals) == 2
    with opened.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    opened.close()


def test_no_update_is_lost_between_writers(db: Database) -> None:
    with db.write() as connection:
        connection.execute(sa.insert(TALLY).values(name="n", count=0))

    def add() -> None:
        for _ in range(50):
            with db.write() as connection:
                known = connection.scalar(sa.select(TALLY.c["count"])) or 0
                connection.execute(sa.update(TALLY).values(count=known + 1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with db.read() as connection:
        assert connection.scalar(sa.select(TALLY.c["count"])) == 200


def test_a_block_that_fails_leaves_nothing(db: Database) -> None:
    twice = [{"name": "n", "count": 1}, {"name": "n", "count": 2}]
    with pytest.raises(sa.exc.IntegrityError), db.write() as connection:
        connection.execute(sa.insert(TALLY), twice)

    with db.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(TALLY)) == 0


def test_a_reader_cannot_keep_what_it_wrote(db: Database) -> None:
    with db.read() as connection:
        connection.execute(sa.insert(TALLY).values(name="n", count=1))

    with db.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(TALLY)) == 0


def test_foreign_keys_are_enforced(db: Database) -> None:
    with pytest.raises(sa.exc.IntegrityError), db.write() as connection:
        connection.execute(sa.insert(DEVICE_LABEL).values(key="a", value="b", device_id="nobody"))


def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "fleet.db").write_bytes(b"not a database, but long enough to be read as one" * 100)

    with pytest.raises(StorageError, match=r"fleet\.db"):
        Database.open(tmp_path)


def record(db: Database, detail: str) -> None:
    with db.write() as connection:
        audit.record(connection, 5, actor="olga", action="start", subject=("rollout", "r-1"), detail=detail)


def test_the_log_verifies_until_an_entry_is_changed(db: Database) -> None:
    for number in range(5):
        record(db, f"entry {number}")
    with db.read() as connection:
        assert audit.verify(connection) == 5

    with db.write() as connection:
        connection.execute(sa.update(EVENT).where(EVENT.c.seq == 3).values(detail="nothing happened"))

    with db.read() as connection, pytest.raises(ValueError, match="entry 3"):
        audit.verify(connection)


def test_the_log_shows_a_missing_entry(db: Database) -> None:
    for number in range(3):
        record(db, f"entry {number}")
    with db.write() as connection:
        connection.execute(sa.delete(EVENT).where(EVENT.c.seq == 2))

    with db.read() as connection, pytest.raises(ValueError, match="entry 2"):
        audit.verify(connection)


def test_times_keep_their_moment_and_their_microseconds() -> None:
    moment = datetime(2026, 3, 1, 14, 0, 0, 123457, tzinfo=timezone(timedelta(hours=2)))

    assert from_micros(to_micros(moment)) == moment
    assert from_micros(to_micros(moment)).tzinfo is UTC
    with pytest.raises(ValueError, match="no time zone"):
        to_micros(datetime(2026, 3, 1))  # noqa: DTZ001  # that is the point


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs", max_bytes=1_000)


CONTENT = b"model bytes"
NAME = hashlib.sha256(CONTENT).hexdigest()


def test_a_blob_is_stored_once_and_read_back(blobs: BlobStore) -> None:
    assert blobs.put(NAME, io.BytesIO(CONTENT), len(CONTENT)) is True
    assert blobs.put(NAME, io.BytesIO(CONTENT), len(CONTENT)) is False
    assert blobs.existing(NAME).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "length", "error"), [(b"other", 5, ArtifactError), (b"mode", 11, InputError), (b"x" * 2_000, 2_000, InputError)]
)
def test_a_blob_that_is_not_what_it_says_leaves_nothing(blobs: BlobStore, content: bytes, length: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        blobs.put(NAME, io.BytesIO(content), length)

    with pytest.raises(NotFoundError):
        blobs.existing(NAME)
    assert [path for path in blobs.path(NAME).parent.parent.rglob("*") if path.is_file()] == []


def test_what_a_killed_upload_left_is_removed_and_what_has_arrived_stays(blobs: BlobStore) -> None:
    blobs.put(NAME, io.BytesIO(CONTENT), len(CONTENT))
    (blobs.path(NAME).parent / ".upload-a1b2").write_bytes(CONTENT[:3])

    assert blobs.remove_cut_off() == 1
    assert [path.name for path in blobs.path(NAME).parent.iterdir()] == [NAME]
    assert blobs.remove_cut_off() == 0


def test_a_name_that_is_no_digest_never_becomes_a_path(blobs: BlobStore) -> None:
    with pytest.raises(InputError):
        blobs.path("../../etc/passwd")


def test_enrolling_twice_leaves_one_password_line_per_device(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    file.write_text("fleet-server:$7$101$a$b\n")

    first, second = give_password("d0", file, None), give_password("d0", file, None)

    lines = file.read_text().splitlines()
    assert first != second
    assert [line.split(":")[0] for line in lines] == ["fleet-server", "d0"]
    assert oct(file.stat().st_mode & 0o777) == "0o600"


def test_a_pid_file_that_names_no_process_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text("1\n")

    with pytest.raises(ConfigError, match="no process id"):
        give_password("d0", tmp_path / "passwords", tmp_path / "pid")


def test_others_are_served_only_behind_a_tls_proxy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="put a TLS proxy in front"):
        ServerConfig(data_dir=tmp_path, host="0.0.0.0")  # noqa: S104  # that is the point
    with pytest.raises(ConfigError, match="loopback only"):
        ServerConfig(data_dir=tmp_path, host="0.0.0.0", behind_tls_proxy=True, anonymous_role="viewer")  # noqa: S104
    assert ServerConfig(data_dir=tmp_path, host="0.0.0.0", behind_tls_proxy=True).behind_tls_proxy  # noqa: S104


@pytest.mark.parametrize("url", ["http://x", "mqtt://", "mqtt://user:secret@host", "mqtt://host:99999", "host:1883"])
def test_a_broker_that_is_no_broker_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError):
        ServerConfig(data_dir=tmp_path, broker_url=url)


def test_a_data_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")

    with pytest.raises(StorageError, match=r"fleet\.db"):
        Database.open(tmp_path / "file" / "data")
