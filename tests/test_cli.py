"""The command line end to end on a tiny trial: every command, its JSON, its help, and its errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tests.tiny_trial import tiny_config, write_backbone, write_beir
from twofold import plugins
from twofold.cli import app, main
from twofold.errors import ConfigError, DataError

COMMANDS = ("train", "check", "evaluate", "compare", "encode", "rank", "methods", "routers", "doctor", "demo")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained tiny trial, its config and its data."""
    folder = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TWOFOLD_CACHE", str(folder / "cache"))
        config = tiny_config(write_backbone(folder / "backbone"), write_beir(folder / "tiny"))
        (folder / "config.toml").write_text(config.to_toml())
        result = run("train", folder / "config.toml", "--to", folder / "trials", "--json")
        (folder / "model.txt").write_text(json.loads(result.stdout)["model"])
    return folder


@pytest.fixture
def model(place: Path) -> str:
    return (place / "model.txt").read_text()


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    assert "Example" in run(command, "--help").stdout


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


def test_evaluate_writes_a_result_that_compare_reads(place: Path, model: str, tmp_path: Path) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    shown = run("evaluate", model, "--data", place / "tiny", "--depth", "5", "--to", files[0], "--runs", tmp_path / "runs")
    assert "pipeline" in shown.stdout and (tmp_path / "runs" / "dense.trec").is_file()
    as_json = run("evaluate", model, "--data", place / "tiny", "--depth", "5", "--to", files[1], "--json")
    assert json.loads(as_json.stdout)["rows"]["dense"] == json.loads(files[0].read_text())["rows"]["dense"]
    compared = json.loads(run("compare", *files, "--json").stdout)
    assert {row["row"] for row in compared["rows"]} >= {"dense", "reranked"}
    assert all(row["gain"]["mean"] == 0 for row in compared["rows"])
    assert "dense" in run("compare", *files).stdout


def test_encode_prints_and_writes_unit_vectors(model: str, tmp_path: Path) -> None:
    vectors = np.array(json.loads(run("encode", model, "one text", "another", "--json").stdout)["vectors"])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    run("encode", model, "one text", "another", "--to", tmp_path / "vectors.npy")
    assert np.allclose(np.load(tmp_path / "vectors.npy"), vectors, atol=1e-6)
    assert "one text" in run("encode", model, "one text").stdout


def test_encode_reads_lines_from_the_input(model: str) -> None:
    result = CliRunner().invoke(app, ["encode", model, "--json"], input="one text\nanother\n")
    assert len(json.loads(result.stdout)["vectors"]) == 2


def test_rank_orders_documents(model: str) -> None:
    found = json.loads(run("rank", model, "a query", "first text", "second text", "third text", "--top", "2", "--json").stdout)
    assert len(found) == 2 and found[0]["score"] >= found[1]["score"]
    assert found[0]["document"] in run("rank", model, "a query", "first text", "second text", "third text").stdout


@pytest.mark.parametrize("family", ["methods", "routers"])
def test_lists_are_the_folders(family: str) -> None:
    assert sorted(json.loads(run(family, "--json").stdout)) == plugins.names(family)
    assert all(name in run(family).stdout for name in plugins.names(family))


def test_doctor_reports_as_json() -> None:
    report = json.loads(run("doctor", "--json").stdout)
    assert report["environment"]["versions"]["torch"]


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
