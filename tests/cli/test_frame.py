"""What all commands share: help with an example, errors of one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.typed import run
from twofold.cli import main

COMMANDS = ("train", "check", "evaluate", "compare", "encode", "rank", "classify", "methods", "routers", "doctor", "demo")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    assert "Example" in run(command, "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "missing.toml"], "missing.toml"),
        (["train", "nowhere"], "no dataset 'nowhere'"),
        (["check", "pydoc"], "did you mean 'pydocs'?"),
        (["rank", "no/such/folder", "query", "document"], "no/such/folder"),
        (["evaluate", "no/such/folder", "--data", "nowhere"], "no/such/folder"),
    ],
)
def test_errors_are_one_line_and_exit_code_two(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["twofold", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err
    assert ended.value.code == 2 and said in told.replace("\n", "") and "Traceback" not in told


def test_a_changed_byte_is_refused_by_name(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    (copy / "README.md").write_text("something else")
    monkeypatch.setattr("sys.argv", ["twofold", "encode", str(copy), "text"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and "README.md" in capsys.readouterr().err.replace("\n", "")
