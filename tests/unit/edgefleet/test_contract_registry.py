"""Registering without a server: what is refused before, and that trouble is one sentence. The real server is in tests/integration."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgefleet.errors import ConfigError, InputError
from edgefleet.ports import free_port
from edgefleet.registry import check_url, register


@pytest.mark.parametrize("url", ["file:///tmp/runs", "sqlite:///a.db", "localhost:5000", "http://", "http://[", "http://a:99999", ""])
def test_what_is_no_servers_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"--mlflow = .* is no server's address: write http://HOST:PORT"):
        check_url(url, "--mlflow")


@pytest.mark.parametrize("url", ["https://anna:secret@mlflow.example.org", "https://:secret@mlflow.example.org:5000/"])
def test_a_password_in_the_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD in the environment") as refused:
        check_url(url, "--mlflow")

    assert "secret" not in str(refused.value)


def test_a_folder_that_holds_no_package_cannot_be_registered(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither package\.json nor manifest\.json is there"):
        register(tmp_path, "pump", "http://127.0.0.1:9")


def test_a_server_that_stays_away_costs_the_same_sentence_at_every_try(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    # In a process of its own: the import of mlflow takes a second and changes the environment.
    program = (
        "import sys; from pathlib import Path; from edgefleet.errors import TransportError; from edgefleet.registry import register\n"
        "for _ in range(2):\n"
        "    try: register(Path(sys.argv[2]), 'pump', sys.argv[1])\n"
        "    except TransportError as err: print(err)\n"
    )
    url = f"http://127.0.0.1:{free_port()}"
    done = subprocess.run([sys.executable, "-c", program, url, str(tmp_path)], capture_output=True, text=True, timeout=60)

    first, second = done.stdout.splitlines()
    assert first == second
    assert first == (
        f"MLflow at {url} did not take it all (no answer: Connection refused); {tmp_path.name} is not registered; "
        "register it again when the server is back"
    )


def test_a_fleet_server_that_names_mlflow_and_lacks_its_client_does_not_start(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['mlflow'] = None; from edgefleet.cli.main import main\n"
        "sys.argv = ['edgefleet', 'serve', '--data', sys.argv[1], '--port', '0', '--mlflow', 'http://127.0.0.1:9']; main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "data")], capture_output=True, text=True, timeout=60)

    assert done.returncode == 78
    assert "pip install 'edgefleet[tracking]'" in done.stderr
    assert not (tmp_path / "data").exists()
