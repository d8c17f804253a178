"""`probe` and `probes`, end to end on a tiny trial."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.typed import run
from twofold import plugins
from twofold.errors import ConfigError


def test_the_list_is_the_folder() -> None:
    assert sorted(json.loads(run("probes", "--json").stdout)) == plugins.names("probes")


def test_a_report_says_what_it_is_of_and_is_written_whole(place: Path, model: str, tmp_path: Path) -> None:
    given = ("probe", "routing", model, "--data", place / "tiny", "--split", "train", "--queries", "6", "--set", "permutations=3")
    found = json.loads(run(*given, "--to", tmp_path / "deep" / "routing.json", "--json").stdout)
    assert found["facts"]["experts"] == 3 and found["settings"]["permutations"] == 3
    assert found["data"][0]["name"] == "tiny" and found["model"]["manifest"] and found["environment"]["versions"]
    assert {row["step"] for row in found["tables"]["steps"]}  # it found the trial around the model
    written = json.loads((tmp_path / "deep" / "routing.json").read_text())
    assert written["tables"] == found["tables"]
    shown = run(*given).stdout
    assert "effective_experts" in shown and "24 shown" in shown


def test_what_cannot_be_run_is_said_first(place: Path, model: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'routing'"):
        run("probe", "routin", "nowhere", "--data", "nothing")
    with pytest.raises(ConfigError, match="did you mean 'permutations'"):
        run("probe", "routing", model, "--data", place / "tiny", "--set", "permutation=3")
    with pytest.raises(ConfigError, match="use NAME=VALUE"):
        run("probe", "routing", model, "--data", place / "tiny", "--set", "a.b=3")
    (tmp_path / "labels.jsonl").write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n')
    with pytest.raises(ConfigError, match="labelled texts"):
        run("probe", "routing", model, "--data", tmp_path / "labels.jsonl")
