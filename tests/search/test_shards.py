"""Shards: alike however they are made, whole or refused, and as good as indexing at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twofold.data.splits import lot
from twofold.errors import CheckpointError, ConfigError
from twofold.search.index import Index, Settings
from twofold.search.indexing import bring_up_to_date
from twofold.search.passages import Cut
from twofold.search.reader import Reader
from twofold.search.shards import encode_shard, merge_shards, open_for, shard_folder
from twofold.search.sources import open_origin
from twofold.search.stores.exact import ExactStore


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "list.jsonl"
    rows = [{"_id": f"d{n}", "title": "Fox", "text": f"The fox {n} runs. " * (1 + n % 3)} for n in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"_id": "ba\n')
    return path


def make(lines: Path, reader: Reader, to: Path, shards: Sequence[int] = (2, 0, 1), of: int = 3) -> None:
    for shard in shards:
        encode_shard(open_origin(lines), reader, Cut.of(reader.room), "nowhere", to, shard, of)


def contents(index: Index) -> dict[str, Any]:
    assert isinstance(index.store, ExactStore)
    state = index.store._state
    return {passage.id: (passage, state.vector_MD[n].tolist()) for n, passage in enumerate(state.passages)}


def test_merged_shards_are_the_index_that_one_process_makes(lines: Path, reader: Reader, tmp_path: Path) -> None:
    make(lines, reader, tmp_path / "shards")
    merged = open_for(tmp_path / "shards", tmp_path / "merged", "exact")
    report = merge_shards(merged, tmp_path / "shards")
    whole = Index.make(tmp_path / "whole", Settings.of("nowhere", reader, Cut.of(reader.room), "exact"))
    direct = bring_up_to_date(whole, open_origin(lines), reader.spans, reader.callables.encode_document)
    assert merged.settings == whole.settings and report.added == direct.added == 12 and report.passages == direct.passages
    ours, theirs = contents(merged), contents(whole)
    assert ours.keys() == theirs.keys() and all(ours[key][0] == theirs[key][0] for key in ours)
    assert all(np.allclose(ours[key][1], theirs[key][1], atol=1e-5) for key in ours)
    assert merge_shards(merged, tmp_path / "shards").unchanged == 12
    assert bring_up_to_date(merged, open_origin(lines), reader.spans, reader.callables.encode_document).unchanged == 12


def test_a_shard_that_is_there_is_not_made_again(lines: Path, reader: Reader, tmp_path: Path) -> None:
    make(lines, reader, tmp_path)
    before = (shard_folder(tmp_path, 0, 3) / "manifest.json").read_bytes()
    assert encode_shard(open_origin(lines), reader, Cut.of(reader.room), "nowhere", tmp_path, 0, 3) is None
    shutil.rmtree(shard_folder(tmp_path, 0, 3))
    make(lines, reader, tmp_path, [0])
    assert (shard_folder(tmp_path, 0, 3) / "manifest.json").read_bytes() == before
    with pytest.raises(CheckpointError, match="is there, made with another size"):
        encode_shard(open_origin(lines), reader, Cut(5, 0), "nowhere", tmp_path, 0, 3)


def test_a_shard_that_was_interrupted_is_not_there(lines: Path, reader: Reader, tmp_path: Path) -> None:
    def stop(seen: int, written: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_shard(open_origin(lines), reader, Cut.of(reader.room), "nowhere", tmp_path, 0, 3, stop)
    assert not list(tmp_path.glob("*shard-*"))


def test_missing_damaged_and_foreign_shards_are_refused(lines: Path, reader: Reader, tmp_path: Path) -> None:
    place = tmp_path / "shards"
    with pytest.raises(CheckpointError, match="make them with: twofold encode"):
        open_for(place, tmp_path / "index")
    make(lines, reader, place, [0, 2])
    with pytest.raises(CheckpointError, match=r"of 3 shards, \[1\] is missing"):
        open_for(place, tmp_path / "index")
    encode_shard(open_origin(lines), reader, Cut(5, 0), "nowhere", place, 1, 3)
    with pytest.raises(CheckpointError, match="differ in size"):
        open_for(place, tmp_path / "index")
    shutil.rmtree(shard_folder(place, 1, 3))
    make(lines, reader, place, [1])
    index = open_for(place, tmp_path / "index", "exact")
    vectors = shard_folder(place, 1, 3) / "vectors.f32"
    content = bytearray(vectors.read_bytes())
    content[5] ^= 1
    vectors.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"vectors\.f32: changed"):
        merge_shards(index, place)
    other = Index.make(tmp_path / "other", replace(index.settings, fingerprint="0" * 64))
    shutil.rmtree(shard_folder(place, 1, 3))
    make(lines, reader, place, [1])
    with pytest.raises(CheckpointError, match="made by another model"):
        merge_shards(other, place)


def test_what_vanished_from_the_shards_goes_unless_bad_lines_may_be_it(lines: Path, reader: Reader, tmp_path: Path) -> None:
    make(lines, reader, tmp_path / "a")
    index = open_for(tmp_path / "a", tmp_path / "index", "exact")
    merge_shards(index, tmp_path / "a")
    rows = lines.read_text().splitlines(keepends=True)
    lines.write_text("".join(rows[1:]))
    make(lines, reader, tmp_path / "b", range(2), 2)
    assert merge_shards(index, tmp_path / "b").kept == 1
    lines.write_text("".join(rows[1:-1]))
    make(lines, reader, tmp_path / "c", range(2), 2)
    assert merge_shards(index, tmp_path / "c").deleted == 1 and len(index.store.documents()) == 11


def test_what_was_emptied_goes_from_an_index_of_shards_too(lines: Path, reader: Reader, tmp_path: Path) -> None:
    make(lines, reader, tmp_path / "a")
    index = open_for(tmp_path / "a", tmp_path / "index", "exact")
    merge_shards(index, tmp_path / "a")
    rows = lines.read_text().splitlines(keepends=True)
    lines.write_text("".join(['{"_id": "d0", "text": ""}\n', '{"_id": "d1", "text": 1}\n', *rows[2:]]))
    make(lines, reader, tmp_path / "b", range(2), 2)
    report = merge_shards(index, tmp_path / "b")
    assert (report.deleted, report.kept) == (1, 1) and "d0" not in index.store.documents() and "d1" in index.store.documents()


def test_shards_of_a_list_that_changed_between_them_lose_nothing(lines: Path, reader: Reader, tmp_path: Path) -> None:
    """One was made while a document of another was empty."""
    rows = lines.read_text().splitlines(keepends=True)
    lines.write_text("".join(['{"_id": "d0", "text": ""}\n', *rows[1:]]))
    own = int(lot("d0"), 16) % 2
    make(lines, reader, tmp_path / "a", [1 - own], 2)
    lines.write_text("".join(rows))
    make(lines, reader, tmp_path / "a", [own], 2)
    index = open_for(tmp_path / "a", tmp_path / "index", "exact")
    assert merge_shards(index, tmp_path / "a").added == 12 and merge_shards(index, tmp_path / "a").unchanged == 12
    assert "d0" in index.store.documents()


def test_shards_are_counted_from_zero() -> None:
    assert shard_folder(Path("x"), 7, 8).name == "shard-00007-of-00008"
    for shard, of in ((8, 8), (-1, 8), (0, 0)):
        with pytest.raises(ConfigError, match="counted from 0"):
            shard_folder(Path("x"), shard, of)
