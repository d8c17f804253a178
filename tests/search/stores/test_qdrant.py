"""Qdrant, by its client's local mode: no server is to be had in the tests."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.search.made import WIDTH, passages, vectors
from twofold.errors import CheckpointError
from twofold.search.stores import Known

pytest.importorskip("qdrant_client")
from twofold.search.stores.qdrant import QdrantStore, _weights, _word, build


@pytest.fixture
def store(tmp_path: Path) -> QdrantStore:
    return build(tmp_path / "mine", WIDTH, local=True)


def test_the_collection_is_named_after_the_folder(store: QdrantStore) -> None:
    assert store.collection == "mine" and store.facts()["mode"] == "local"


def test_a_document_that_a_dead_writer_left_half_replaced_counts_as_changed(store: QdrantStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.upsert(passages("a", 4, digest="old"), vectors(4), new=True)
    store.upsert(passages("b", 2), vectors(2), new=True)

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "_delete", dies)
        with pytest.raises(KeyboardInterrupt):
            store.upsert(passages("a", 2, digest="new"), vectors(2))
    assert store.documents() == {"a": Known("", "o"), "b": Known("d", "o")}
    store.upsert(passages("a", 2, digest="new"), vectors(2))
    assert store.documents()["a"].digest == "new" and store.count() == 4


def test_a_document_of_which_a_part_is_missing_counts_as_changed(store: QdrantStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twofold.search.stores.qdrant.AT_ONCE", 2)
    upsert, calls = store._client.upsert, []

    def dies(*given: object, **named: object) -> object:
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return upsert(*given, **named)

    monkeypatch.setattr(store._client, "upsert", dies)
    with pytest.raises(KeyboardInterrupt):
        store.upsert(passages("a", 5), vectors(5), new=True)
    assert store.documents()["a"].digest == ""


def test_words_weigh_as_bm25_says() -> None:
    weights = _weights(["fox"] * 3 + ["dog"] + ["x"] * 56)  # sixty words, the length that counts as usual
    assert weights[_word("dog")] == pytest.approx(1.0) and weights[_word("fox")] == pytest.approx(3 * 2.2 / 4.2)


def test_another_width_is_refused(store: QdrantStore, tmp_path: Path) -> None:
    store.close()
    with pytest.raises(CheckpointError, match="holds vectors of 8 features, and the model's have 9"):
        build(tmp_path / "mine", 9, local=True)


def test_a_server_that_is_not_there_is_an_error_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(CheckpointError, match="collection 'mine': Qdrant: "):
        build(tmp_path / "mine", WIDTH, url=f"http://127.0.0.1:{port}")
