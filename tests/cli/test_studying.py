"""`twofold study`: a study is run, looked at and reported; what is wrong in its file is an error that says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.typed import run
from tests.study.conftest import tiny_values
from tests.tiny_trial import write_backbone, write_beir
from twofold import toml
from twofold.errors import ConfigError


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a tiny study without a sweep, of which one arm is done."""
    folder = tmp_path_factory.mktemp("studying")
    values = tiny_values(write_backbone(folder / "backbone"), write_beir(folder / "beir"))
    values["sweep"]["lr"], values["study"]["seeds"] = [], [0]
    (folder / "tiny.toml").write_text(toml.dump(values))
    done = run("study", "run", folder / "tiny.toml", "--only", "alone", *places(folder), "--trials", folder / "trials")
    assert done.exit_code == 0 and "1 of 1 cells done" in done.stdout
    return folder / "tiny.toml"


def places(folder: Path) -> tuple[str, Path]:
    return "--results", folder / "results"


def test_status_counts(study: Path) -> None:
    assert "1 of 4 cells done; the rest, in one process: " in run("study", "status", study, *places(study.parent)).stdout
    found = json.loads(run("study", "status", study, *places(study.parent), "--json").stdout)
    assert (found["cells"], found["cells_done"], found["sweeps"], found["bounded"]) == (4, 1, 0, False)


def test_report_is_written(study: Path, tmp_path: Path) -> None:
    found = json.loads(run("study", "report", study, *places(study.parent), "--to", tmp_path, "--json").stdout)
    assert len(found["answers"]) == 9 and all(Path(path).is_file() for path in found["files"])
    assert "| alone |" in (tmp_path / "report.md").read_text()
    assert "7. Does routing cost anything? not decided" in run("study", "report", study, *places(study.parent), "--to", tmp_path).stdout


def test_a_wrong_file_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[study]\nname = "a"\ntitel = "A?"\n')
    with pytest.raises(ConfigError, match="unknown key 'study.titel'; did you mean 'study.title'"):
        run("study", "status", tmp_path / "a.toml")
