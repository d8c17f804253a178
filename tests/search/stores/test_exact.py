"""The plainest store: what the contract does not say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.search.made import WIDTH, passages, vectors
from twofold.errors import CheckpointError
from twofold.ranking import exact_top_k
from twofold.search.stores import exact
from twofold.search.stores.exact import FILE, ExactStore


def test_without_a_folder_nothing_is_written() -> None:
    store = ExactStore(None, WIDTH)
    store.upsert(passages("a", 2), vectors(2))
    assert store.count() == 2


def test_a_search_without_a_condition_does_not_copy_the_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    store, looked_at = ExactStore(None, WIDTH), []
    store.upsert(passages("a", 6, lang="en"), vectors(6))
    monkeypatch.setattr(exact, "exact_top_k", lambda query, chunks, k: looked_at.extend(chunks) or exact_top_k(query, chunks, k))
    assert store.search(vectors(1)[0], 3) == store.search(vectors(1)[0], 3, {"lang": "en"})
    store.upsert(passages("b", 1, lang="de"), vectors(1))
    assert len(store.search(vectors(1)[0], 9, {"lang": "en"})) == 6
    whole, narrowed, some = looked_at
    assert np.shares_memory(whole, narrowed) and whole.flags.owndata and not np.shares_memory(some, store._state.vector_MD)


def test_a_damaged_file_and_one_of_another_width_are_refused_by_name(tmp_path: Path) -> None:
    ExactStore(tmp_path, WIDTH).upsert(passages("a", 20), vectors(20))
    with pytest.raises(CheckpointError, match=r"passages\.npz: cannot be read: vectors \(20, 8\).*of width 9"):
        ExactStore(tmp_path, 9)
    whole = (tmp_path / FILE).read_bytes()
    for at in range(0, len(whole), 97):
        content = bytearray(whole)
        content[at] ^= 64
        (tmp_path / FILE).write_bytes(content)
        try:
            assert ExactStore(tmp_path, WIDTH).get(["a#1"]) == passages("a", 20)[1:2]
        except CheckpointError as error:
            assert FILE in str(error)
    (tmp_path / FILE).write_bytes(whole[:100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        ExactStore(tmp_path, WIDTH)


def test_a_full_disk_leaves_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ExactStore(tmp_path, WIDTH)
    store.upsert(passages("a", 2), vectors(2))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.savez", full)
    with pytest.raises(CheckpointError, match=r"passages\.npz: could not be written: .*No space left"):
        store.upsert(passages("b", 2), vectors(2))
    monkeypatch.undo()
    assert store.count() == 2 and ExactStore(tmp_path, WIDTH).count() == 2
