"""The benchmarks of the index run, at tiny sizes; nothing is asserted about time."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from tests.tiny_trial import stirred, tiny_unified, write_backbone, write_beir
from twofold.model.folder import save

pytest.importorskip("lancedb")
from bench import index_documents, index_kill
from bench._report import Change, read_log, write_line


def test_a_log_of_a_killed_process_says_what_was_acknowledged(tmp_path: Path) -> None:
    changes = [Change(0, "a", {"d1": 2}, []), Change(1, "b", {}, ["d1"]), Change(2, "c", {"d2": 1}, [])]
    with (tmp_path / "log").open("w") as file:
        for change in changes:
            write_line(file, change, done=False)
            write_line(file, change, done=True) if change.number < 2 else None
        file.write('{"number": 3, "dig')
    done, begun = read_log(tmp_path / "log")
    assert done == changes[:2] and begun == changes[2]
    assert changes[1].applied(changes[0].applied({})) == {} and changes[2].applied({}) == {"d2": ("c", 1)}
    assert [change.kind for change in (*changes, Change(4, "d", {}, []))] == ["a write", "a removal", "a write", "putting in order"]


def test_index_kill(capsys: pytest.CaptureFixture[str]) -> None:
    content = index_kill.main(["--quick"])
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(content))
    assert content["scoreboard"] == []
    kills, damage = content["kills"], content["damage"]
    assert kills["kills"] == kills["reopened_whole"] == 2 and kills["changes_acknowledged"] > 0 and not kills["complaints"]
    assert content["against_a_dict"]["differences"] == 0
    assert damage.get("refused", 0) + damage.get("equal", 0) == damage["mutations"] and not damage["complaints"]


def test_a_lost_document_is_seen(tmp_path: Path) -> None:
    store = index_kill.opened("exact", tmp_path)
    rows = index_kill.passages("d1", 2, index_kill.word_of("0-1"), "0-1")
    store.upsert(rows, index_kill.vectors(2, 0, index_kill.WIDTH))
    whole = {"d1": ("0-1", 2)}
    assert index_kill.compare(store, whole, None) == ([], whole)
    assert "d2" in index_kill.compare(store, {**whole, "d2": ("0-2", 1)}, None)[0][0]
    assert "d1" in index_kill.compare(store, {"d1": ("0-1", 3)}, None)[0][0]
    assert index_kill.compare(store, {}, Change(1, "0-1", {"d1": 2}, [])) == ([], whole)
    assert index_kill.compare(store, {}, Change(1, "0-1", {"d1": 2, "d2": 1}, []))[0]  # half of a change


def test_index_documents(tmp_path: Path) -> None:
    save(stirred(tiny_unified(write_backbone(tmp_path / "backbone"))).eval(), tmp_path / "model")
    place, log, data = tmp_path / "index", tmp_path / "log", str(write_beir(tmp_path / "tiny"))
    index_documents.index_once(place, log, data, str(tmp_path / "model"), None)
    names, reports = index_documents.acknowledged(log)
    assert len(names) == reports[0]["report"]["added"] == 40
    chosen = argparse.Namespace(documents=data, queries=3, model=str(tmp_path / "model"), precision=None, depth=5)
    found = index_documents.asked(place, chosen)
    assert found["queries"] == 3 and set(found["rows"]) == {name for name, _, _ in index_documents.WAYS}
    assert all(0 <= row["nDCG@10"] <= 1 for row in found["rows"].values())
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "file").write_bytes(bytes(250_000))
    assert index_documents.size_of(tmp_path / "large") == 0.2
