"""LanceDB: crashes, damage, other processes, and the index for vectors."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.search.made import WIDTH, passages, vectors
from twofold.errors import CheckpointError, ConfigError

pytest.importorskip("lancedb")
from twofold.search.stores.lancedb import LanceStore, build


@pytest.fixture
def store(tmp_path: Path) -> LanceStore:
    made = build(tmp_path, WIDTH)
    made.upsert(passages("a", 3), vectors(3), new=True)
    made.upsert(passages("b", 2), vectors(2, 1), new=True)
    return made


def versions(folder: Path) -> list[Path]:
    """Manifests, the newest first: Lance counts down from the largest number."""
    return sorted((folder / "passages.lance" / "_versions").glob("*.manifest"))


@pytest.mark.parametrize("content", [b"", b"\0" * 300, None])
def test_a_state_torn_by_a_crash_is_set_aside(store: LanceStore, content: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    ledger = (store.folder / "seals.jsonl").read_bytes()
    store.upsert(passages("c", 1), vectors(1), new=True)
    (store.folder / "seals.jsonl").write_bytes(ledger)  # the crash came before the acknowledgement
    newest = versions(store.folder)[0]
    newest.write_bytes(newest.read_bytes()[:50] if content is None else content)
    with caplog.at_level(logging.WARNING):
        again = build(store.folder, WIDTH)
    assert "torn by a crash" in caplog.text and again.documents().keys() == {"a", "b"}
    again.upsert(passages("c", 1), vectors(1), new=True)
    assert build(store.folder, WIDTH).count() == 6


def test_a_write_that_was_done_but_not_acknowledged_is_kept(store: LanceStore) -> None:
    ledger = (store.folder / "seals.jsonl").read_bytes()
    store.upsert(passages("c", 1), vectors(1), new=True)
    (store.folder / "seals.jsonl").write_bytes(ledger)
    assert build(store.folder, WIDTH).count() == 6


def test_every_file_is_sealed(store: LanceStore) -> None:
    store.optimize()
    files = [
        path for path in sorted((store.folder / "passages.lance").rglob("*")) if path.is_file() and path.name != "latest_version_hint.json"
    ]
    assert len(files) > 5
    for path in files:
        content = path.read_bytes()
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        with pytest.raises(CheckpointError, match=path.name):
            build(store.folder, WIDTH)
        path.write_bytes(content)
    build(store.folder, WIDTH).verify()


def test_a_lost_state_is_refused(store: LanceStore) -> None:
    versions(store.folder)[0].unlink()
    with pytest.raises(CheckpointError, match=r"\.manifest: missing"):
        build(store.folder, WIDTH)


def test_a_lost_table_is_refused(store: LanceStore) -> None:
    (store.folder / "passages.lance").rename(store.folder / "elsewhere")
    with pytest.raises(CheckpointError, match="missing"):
        build(store.folder, WIDTH)


def test_another_width_is_refused(store: LanceStore) -> None:
    with pytest.raises(CheckpointError, match="not one for vectors of 9 features"):
        build(store.folder, 9)
    with pytest.raises(ValueError, match="width 8"):
        store.upsert(passages("z", 1), vectors(1, width=9))


def test_a_reader_sees_what_was_written_meanwhile(store: LanceStore) -> None:
    reading = build(store.folder, WIDTH)
    store.upsert(passages("c", 2, word="violet"), vectors(2, 5), new=True)
    assert reading.count() == 7 and {match.passage.document for match in reading.lexical("violet", 9)} == {"c"}
    store.delete(["a"])
    store.optimize()
    assert {match.passage.document for match in reading.search(vectors(1)[0], 9)} == {"b", "c"}


@pytest.mark.parametrize("width", [8, 12])  # codes of one bit a feature are whole bytes; other widths have an index without codes
def test_an_index_for_vectors_above_a_size(tmp_path: Path, width: int) -> None:
    store = build(tmp_path, width, approximate_above=300, probes=4)
    store.upsert(passages("a", 299), vectors(299, width=width), new=True)
    store.optimize()
    assert store.facts()["vectors"] == "exact"
    store.upsert(passages("b", 201), vectors(201, 1, width), new=True)
    store.optimize()
    assert store.facts()["vectors"] == "approximate: IVF, 4 probes, 4 k refined"
    every = np.concatenate([vectors(299, width=width), vectors(201, 1, width)])
    ids = [passage.id for passage in (*passages("a", 299), *passages("b", 201))]
    query_ND = vectors(20, 7, width)
    right = 0
    for query_D in query_ND:
        best = {ids[i] for i in np.argsort(-(every @ query_D))[:10]}
        found = store.search(query_D, 10)
        right += len(best & {match.passage.id for match in found})
        assert [match.score for match in found] == pytest.approx(
            [every[ids.index(match.passage.id)] @ query_D for match in found], abs=1e-5
        )
    assert right > 150  # of 200
    store.upsert(passages("new", 1), query_ND[:1], new=True)
    assert store.search(query_ND[0], 1)[0].passage.id == "new#0"  # what is not in the index yet is found all the same
    again = build(tmp_path, width, approximate_above=300, probes=4)
    assert again.facts()["vectors"].startswith("approximate")


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(ConfigError, match=r"pip install 'twofold\[index\]'"):
        build(tmp_path, WIDTH)
