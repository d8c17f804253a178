"""`answer` and `evaluate --task answer`, end to end on a tiny trial that was given the task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.typed import run
from tests.tiny import write_decoder
from twofold.errors import CheckpointError, ConfigError


@pytest.fixture(scope="module")
def reads(place: Path) -> str:
    """A model that answers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TWOFOLD_CACHE", str(place / "cache"))
        start = (place / "model.txt").read_text()
        settings = ("--set", "optim.steps=2", "--set", "dev.queries=2", "--set", "tasks.answer.batch=2")
        result = run("train", place / "tiny", "--from", start, "--add", "answer", *settings, "--to", place / "answers", "--json")
    return str(json.loads(result.stdout)["model"])


@pytest.fixture(scope="module")
def indexed(place: Path, reads: str) -> Path:
    run("index", place / "tiny", "--to", place / "index", "--model", reads, "--store", "exact")
    return place / "index"


def test_a_question_is_answered_from_an_index_with_what_it_rests_on(indexed: Path) -> None:
    found = json.loads(run("answer", indexed, "bd cf", "--threshold", "-1e9", "--read", "3", "--json").stdout)
    assert found["supported"]
    assert found["read"] == 3
    (first, *_) = found["citations"]
    assert first["quote"] == found["text"]
    assert first["context"].startswith(first["quote"]) or first["quote"] in first["context"]
    said = run("answer", indexed, "bd cf", "--threshold", "-1e9", "--read", "3").stdout
    assert found["text"] in said
    assert "passages read" in said


def test_where_nothing_supports_an_answer_it_says_so(indexed: Path) -> None:
    assert not json.loads(run("answer", indexed, "bd cf", "--threshold", "1e9", "--json").stdout)["supported"]
    assert "Nothing that was found answers this" in run("answer", indexed, "bd cf", "--threshold", "1e9").stdout


def test_a_file_is_read_without_an_index(reads: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("bd cf gh. kl mn pr.", encoding="utf-8")
    arguments = ("--model", reads, "--passage", tmp_path / "notes.txt", "--threshold", "-1e9", "--json")
    found = json.loads(run("answer", "bd?", *arguments).stdout)
    (first, *_) = found["citations"]
    assert "bd cf gh. kl mn pr."[first["start"] : first["end"]] == found["text"]
    assert first["source"] == "notes.txt:1"


def test_a_decoder_reads_what_was_found(indexed: Path, tmp_path: Path) -> None:
    write_decoder(tmp_path / "decoder", "llama")
    found = json.loads(
        run("answer", indexed, "b", "--reader", "decoder", "--decoder", tmp_path / "decoder", "--read", "1", "--json").stdout
    )
    assert found["reader"] == str(tmp_path / "decoder")
    assert found["read"] == 1


def test_what_is_asked_wrongly_is_said(indexed: Path, reads: str, model: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("bd cf", encoding="utf-8")
    wrong = {
        ("alone",): "give an index and a question",
        (str(indexed), "q", "--passage", str(tmp_path / "notes.txt")): "give a question alone",
        ("q", "--passage", str(tmp_path / "notes.txt")): "say which model reads it",
        (str(indexed), " "): "the question is empty",
        (str(indexed), "q", "--reader", "endpoint"): "needs --endpoint http://HOST/v1 and --endpoint-model NAME",
        ("q", "--passage", str(tmp_path / "notes.txt"), "--model", model): "has not learnt 'answer'",
    }
    for arguments, said in wrong.items():
        with pytest.raises(ConfigError, match=said):
            run("answer", *arguments)
    with pytest.raises(CheckpointError):
        run("answer", tmp_path / "nowhere", "q")


def test_answers_are_evaluated(reads: str, place: Path, tmp_path: Path) -> None:
    asked = ("evaluate", reads, "--data", place / "tiny", "--task", "answer", "--depth", "3", "--sample", "3")
    found = json.loads(run(*asked, "--to", tmp_path / "r.json", "--json").stdout)
    assert found == json.loads((tmp_path / "r.json").read_text())
    assert found["kind"] == "answering"
    assert (found["data"]["questions"], found["settings"]["sample"]) == (4, 3)
    assert found["older"] == {"vectors": 4, "scores": 4, "changed": 0}
    assert found["train"]["steps"] == {"answer": 2}
    said = run(*asked).stdout
    assert "passage given" in said
    assert "4 vectors and 4 scores, 0 changed" in said
    with pytest.raises(ConfigError, match="unknown task 'answer:s'; did you mean 'answer'"):
        run("evaluate", reads, "--data", place / "tiny", "--task", "answer:s")
