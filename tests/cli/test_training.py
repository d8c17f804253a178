"""`train` and `check`, end to end on a tiny trial."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.typed import run
from twofold.errors import ConfigError, DataError


def test_train_again_says_that_it_is_done(place: Path) -> None:
    assert run("train", place / "config.toml", "--to", place / "trials").exit_code == 0


def test_set_changes_a_setting(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOFOLD_CACHE", str(tmp_path / "cache"))
    run("train", place / "config.toml", "--to", tmp_path, "--set", "name=other", "--set", "optim.steps=1")
    assert "steps = 1" in (tmp_path / "other" / "config.toml").read_text()


def test_train_on_data_makes_settings_that_can_be_run_again(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOFOLD_CACHE", str(tmp_path / "cache"))
    rows = [{"title": f"the fox number {n}", "text": "a lazy dog runs over the red fox " * 2 + str(n)} for n in range(20)]
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    backbone, steps = f"backbone.name={place / 'backbone'}", "optim.steps=2"
    result = run("train", tmp_path / "notes", "--to", tmp_path, "--set", backbone, "--set", steps, "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["model"] == str(tmp_path / "notes" / "model")
    assert "only 1" in result.stderr and "settings made for" in result.stderr
    config = tmp_path / "notes" / "config.toml"
    assert run("train", config, "--to", tmp_path, "--set", "name=again").exit_code == 0
    assert run("evaluate", tmp_path / "again" / "model", "--data", tmp_path / "notes").exit_code == 0


def test_check_prints_a_table_and_json_and_fails_where_training_would(place: Path) -> None:
    shown = run("check", place / "tiny", "--config", place / "config.toml")
    assert shown.exit_code == 0 and "judged 0" in shown.stdout and all(len(line) <= 80 for line in shown.stdout.splitlines())
    wrong = run("check", place / "tiny", "--config", place / "config.toml", "--set", "tasks.retrieve.batch=100", "--json")
    assert wrong.exit_code == 1 and json.loads(wrong.stdout)["findings"][0]["level"] == "error"


def test_check_stops_at_a_bad_line_or_counts_it(place: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"query": f"what is {n}", "positive": f"it is {n}"}) for n in range(30)]
    (tmp_path / "pairs.jsonl").write_text("\n".join([*lines, '{"query": "half']))
    backbone = f"backbone.name={place / 'backbone'}"
    with pytest.raises(DataError, match="pairs.jsonl:31: not valid JSON"):
        run("check", tmp_path / "pairs.jsonl", "--set", backbone)
    shown = run("check", tmp_path / "pairs.jsonl", "--set", backbone, "--on-error", "skip")
    assert shown.exit_code == 0 and "1 × not valid JSON" in shown.stdout
    with pytest.raises(ConfigError, match="data.on_error"):
        run("check", tmp_path / "pairs.jsonl", "--on-error", "ignore")


def write_labels(folder: Path) -> Path:
    """Sixty labelled texts."""
    folder.mkdir()
    rows = [{"text": f"{'ba' if i % 2 else 'zu'} number {i}", "label": "ba" if i % 2 else "zu"} for i in range(60)]
    for split in ("train", "test"):
        lines = [json.dumps({**row, "text": f"{split} {row['text']}"}) + "\n" for row in rows]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def test_a_further_expert_from_one_command(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOFOLD_CACHE", str(tmp_path / "cache"))
    letters = write_labels(tmp_path / "letters")
    command = ("train", letters, "--from", model, "--add", "classify", "--to", tmp_path, "--set", "optim.steps=20")
    result = run(*command)
    assert "letters: 5" in result.stderr
    assert "2 labels" in result.stderr
    made = tmp_path / "letters-added" / "model"
    old, new = (json.loads(run("encode", where, "ba du", "--json").stdout) for where in (model, made))
    assert old == new
    (row,) = json.loads(run("classify", made, "train ba number 4", "--json").stdout)
    assert row["label"] in ("ba", "zu")
    found = json.loads(run("evaluate", made, "--data", letters, "--json").stdout)
    assert found["rows"].keys() == {"classifier", "probe", "frozen probe"}
    assert run(*command).exit_code == 0


def test_a_domain_and_going_on_from_one_command(place: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOFOLD_CACHE", str(tmp_path / "cache"))
    few = ("--to", tmp_path, "--set", "optim.steps=1", "--set", "data.negatives={bm25_depth=3,model_depth=0}")
    run("train", place / "tiny", "--from", model, "--add", "domain:legal", *few)
    run("train", place / "tiny", "--from", model, *few)
    measured = ("--data", place / "tiny", "--depth", 3, "--json")
    made = tmp_path / "tiny-added" / "model"
    plain, legal = (json.loads(run("evaluate", made, *measured, *more).stdout) for more in ((), ("--variant", "legal")))
    assert legal["system"]["variant"] == "legal"
    assert "variant" not in plain["system"]
    assert (tmp_path / "tiny-continued" / "model").is_dir()


def test_an_addition_needs_a_model(place: Path) -> None:
    with pytest.raises(ConfigError, match="--from MODEL"):
        run("train", place / "tiny", "--add", "classify")
    with pytest.raises(ConfigError, match="a TOML file says itself"):
        run("train", place / "config.toml", "--from", "anything", "--add", "classify")
