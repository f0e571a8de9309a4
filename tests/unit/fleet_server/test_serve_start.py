"""A server that may not start says why, and changes nothing."""

from pathlib import Path

import pytest

from edgefleet.errors import ConfigError, StorageError
from edgefleet.locks import FolderLock
from fleet_server.config import ServerConfig
from fleet_server.serve import LOCK_FILE, SERVER_FILE, run


def test_a_server_whose_folder_another_holds_touches_nothing(tmp_path: Path) -> None:
    (tmp_path / SERVER_FILE).write_text("{}")
    other = FolderLock(tmp_path / LOCK_FILE, "fleet server")

    with pytest.raises(ConfigError, match="another fleet server"):
        run(ServerConfig(data_dir=tmp_path))
    other.release()

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([LOCK_FILE, SERVER_FILE])


def test_a_data_folder_that_cannot_be_made_is_said_with_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")

    with pytest.raises(StorageError, match="--data"):
        run(ServerConfig(data_dir=tmp_path / "file" / "data"))
