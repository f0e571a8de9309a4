import sys
from pathlib import Path

import pytest

from edgefleet.cli.main import main
from edgefleet.ports import free_port


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["edgefleet", "export", "mlflow", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def test_a_server_that_is_away_is_said_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "package.json").write_text("{}")

    code = run(monkeypatch, str(tmp_path), "--url", f"http://127.0.0.1:{free_port()}", "--name", "press")

    trouble = capsys.readouterr().err
    assert code == 4
    assert "is not registered; register it again when the server is back" in trouble


def test_a_folder_that_is_no_package_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = run(monkeypatch, str(tmp_path), "--url", "http://127.0.0.1:1", "--name", "press")

    assert code == 3
    assert "neither package.json nor manifest.json" in capsys.readouterr().err


def test_an_address_that_is_no_server_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(monkeypatch, str(tmp_path), "--url", "press.db", "--name", "press") == 3
    assert "press.db" in capsys.readouterr().err
