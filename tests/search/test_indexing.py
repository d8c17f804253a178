"""Only what changed is encoded, what vanished goes, and a crash between any two steps loses nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from twofold.errors import DataError
from twofold.search import indexing
from twofold.search.index import Index
from twofold.search.indexing import Report, batches, bring_up_to_date
from twofold.search.reader import Reader
from twofold.search.sources import open_origin
from twofold.search.stores import Passage

Run = Callable[..., Report]


@pytest.fixture
def encoded() -> list[str]:
    """Texts that were encoded."""
    return []


@pytest.fixture
def run(index: Index, reader: Reader, encoded: list[str], folder: Path) -> Run:
    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        encoded.extend(texts)
        return reader.callables.encode_document(texts)

    def bring(place: Path = folder, prefix: str = "", **options: object) -> Report:
        encoded.clear()
        return bring_up_to_date(index, open_origin(place, prefix), reader.spans, encode, **options)  # type: ignore[arg-type]

    return bring


def test_a_folder_is_indexed_and_found(run: Run, index: Index, reader: Reader) -> None:
    report = run()
    assert (report.added, report.changed, report.unchanged, report.deleted) == (2, 0, 0, 0) and report.passages == index.store.count() >= 3
    hit = index.pipeline(reader).search("lazy dog", 1, mode="lexical", rerank=False).hits[0]
    assert (hit.document, hit.source, hit.metadata) == ("dog.txt", "dog.txt:1", {"type": "text"})
    fox = index.pipeline(reader).search("query", 1, mode="lexical", rerank=False).hits[0]
    assert fox.title == "A red fox: Query" and fox.source == "notes/fox.md:8" and fox.metadata["lang"] == "en"
    assert json.loads(json.dumps(report.as_dict()))["skipped"] == {".png: not a kind that is read": 1}


def test_nothing_is_encoded_twice(run: Run, encoded: list[str], folder: Path) -> None:
    run()
    assert run().unchanged == 2 and not encoded
    (folder / "dog.txt").write_text("The dog runs now.")
    (folder / "new.md").write_text("What is new?")
    report = run()
    assert (report.added, report.changed, report.unchanged) == (1, 1, 1)
    assert encoded == ["The dog runs now.", "What is new?"]


def test_what_vanished_goes(run: Run, index: Index, folder: Path) -> None:
    run()
    shutil.rmtree(folder / "notes")
    assert run().deleted == 1 and set(index.store.documents()) == {"dog.txt"}


def test_an_empty_place_removes_nothing(run: Run, index: Index, folder: Path) -> None:
    run()
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no document to index; skipped: 1 × \.png.*nothing was changed"):
        run()
    assert index.store.documents().keys() == {"dog.txt", "notes/fox.md"}


def test_a_file_that_became_unreadable_keeps_its_passages(run: Run, index: Index, folder: Path) -> None:
    run()
    (folder / "dog.txt").write_bytes(b"\xff\xfe not text")
    report = run()
    assert report.skipped.lines == [f"{folder / 'dog.txt'}:1: not UTF-8: byte 0xff"] and report.deleted == 0
    assert "dog.txt" in index.store.documents() and (report.kept, report.missing) == (1, 0)


@pytest.mark.parametrize("content", ["", " \n"])
def test_an_emptied_file_loses_its_passages(run: Run, index: Index, reader: Reader, folder: Path, content: str) -> None:
    """Redacted, it is not to be found or cited any more; also where it is all that there is."""
    run()
    (folder / "dog.txt").write_text(content)
    report = run()
    assert (report.unchanged, report.deleted, report.kept) == (1, 1, 0) and report.skipped.counts["empty text"] == 1
    assert not index.pipeline(reader).search("lazy", 1, mode="lexical", rerank=False).hits
    assert run().deleted == 0
    (folder / "notes" / "fox.md").write_text(content)
    assert run().deleted == 1 and index.store.count() == 0


def test_an_emptied_line_loses_its_passages_whatever_else_cannot_be_read(run: Run, index: Index, tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text("".join(f'{{"_id": "{name}", "text": "a fox"}}\n' for name in "abcd"))
    run(path, prefix="p/")
    lines = [
        '{"_id": "a", "text": ""}',
        '{"_id": "a", "text": "again"}',
        '{"_id": "b", "text": "\\u0000"}',
        '{"_id": "c", "text": "a cat"}',
    ]
    path.write_text("\n".join([*lines, '{"_id": "c", "text": ""}', '{"_id"']))
    report = run(path, prefix="p/")
    assert (report.changed, report.deleted, report.kept, report.missing) == (1, 1, 2, 1)  # kept: b cannot be read, d may be the last line
    assert set(index.store.documents()) == {"p/b", "p/c", "p/d"}


def test_a_line_that_cannot_be_read_may_be_a_document_that_is_there(run: Run, index: Index, tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text('{"_id": "a", "text": "a fox"}\n{"_id": "b", "text": "a dog"}\n')
    run(path)
    path.write_text('{"_id": "a", "text": "a fox"}\n{"_id": "b", "te\n')
    assert run(path).kept == 1 and set(index.store.documents()) == {"a", "b"}
    assert run(path, prune=True).deleted == 1 and set(index.store.documents()) == {"a"}


def test_places_do_not_disturb_each_other(run: Run, index: Index, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "cat.txt").write_text("It is a cat.")
    run()
    assert (run(other).added, run().unchanged) == (1, 2) and len(index.store.documents()) == 3
    (other / "dog.txt").write_text("Another dog.")
    with pytest.raises(DataError, match=r"'dog\.txt' is in the index from .*documents; .*--prefix"):
        run(other)
    report = run(other, "other/")
    assert "other/dog.txt" in index.store.documents() and report.added == 2 and report.deleted == 1


def test_a_crash_anywhere_loses_nothing_that_was_acknowledged(run: Run, index: Index, folder: Path, encoded: list[str]) -> None:
    for n in range(6):
        (folder / f"{n}.txt").write_text(f"Document {n} is a fox.")
    told: list[str] = []

    def stop(documents: Sequence[str]) -> None:
        told.extend(documents)
        if len(told) >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(batch=1, acknowledged=stop)
    there = Index.open(index.folder).store.documents()
    assert set(told) == set(there) and len(told) == 3
    report = run(batch=1, acknowledged=told.extend)
    assert report.unchanged == 3 and report.added == 5 and len(set(told)) == len(told) == 8


def test_progress_counts_up(run: Run) -> None:
    seen: list[tuple[int, int]] = []
    run(progress=lambda *now: seen.append(now))
    assert seen == sorted(seen) and seen[-1][0] == 2 and seen[-1][1] >= 3


def test_a_vector_that_is_no_number_is_never_written(index: Index, reader: Reader, folder: Path) -> None:
    def broken(texts: Sequence[str]) -> NDArray[np.float32]:
        return np.full((len(texts), 32), np.nan, np.float32)

    with pytest.raises(DataError, match=r"dog\.txt:1: the vector of passage 'dog\.txt#0' holds NaN"):
        bring_up_to_date(index, open_origin(folder), reader.spans, broken)
    assert index.store.count() == 0


def test_batches_hold_whole_documents() -> None:
    documents = [[Passage(f"{name}#{n}", name, "", "x") for n in range(size)] for name, size in (("a", 2), ("b", 3), ("c", 9), ("d", 1))]
    assert [(batch.documents, len(batch.passages)) for batch in batches(documents, 4)] == [(["a", "b"], 5), (["c"], 9), (["d"], 1)]


def test_the_store_is_put_in_order_whenever_it_has_doubled_not_every_so_often(
    index: Index, reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.dumps({"_id": f"d{n}", "text": f"a red fox {n}"}) for n in range(40)]
    (tmp_path / "many.jsonl").write_text("\n".join(lines))
    done: list[int] = []
    monkeypatch.setattr(indexing, "OPTIMIZE_AFTER", 4)
    monkeypatch.setattr(index.store, "optimize", lambda: done.append(index.store.count()))
    bring_up_to_date(index, open_origin(tmp_path / "many.jsonl"), reader.spans, reader.callables.encode_document, batch=2)
    assert done == [4, 8, 16, 32, 40]
