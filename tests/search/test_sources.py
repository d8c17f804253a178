"""Where documents come from, and what is said of those that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from twofold.errors import DataError
from twofold.search import sources
from twofold.search.sources import Item, Origin, open_origin


def items(origin: Origin) -> dict[str, Item | None]:
    return {item if isinstance(item, str) else item.id: None if isinstance(item, str) else item for item in origin.items()}


def test_a_folder_is_its_files(folder: Path) -> None:
    origin = open_origin(folder)
    found = items(origin)
    assert list(found) == ["dog.txt", "notes/fox.md"]
    fox = found["notes/fox.md"]
    assert fox is not None and fox.metadata == {"type": "markdown", "folder": "notes"} and fox.source == "notes/fox.md"
    assert fox.load().title == "A red fox" and fox.load().facts == {"lang": "en"}
    assert origin.skipped.counts == {".png: not a kind that is read": 1} and origin.skipped.lines == []
    assert list(items(open_origin(folder, "mine/"))) == ["mine/dog.txt", "mine/notes/fox.md"]


def test_hidden_files_are_passed_over_and_one_file_is_a_folder_of_itself(folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "a.md").write_text("hidden")
    (folder / ".b.md").write_text("hidden")
    assert len(items(open_origin(folder))) == 2
    assert list(items(open_origin(folder / "dog.txt"))) == ["dog.txt"]


def test_the_digest_is_of_the_bytes(folder: Path) -> None:
    before = items(open_origin(folder))
    (folder / "dog.txt").write_text("Another dog.")
    after = items(open_origin(folder))
    assert before["dog.txt"].digest != after["dog.txt"].digest  # type: ignore[union-attr]
    assert before["notes/fox.md"].digest == after["notes/fox.md"].digest  # type: ignore[union-attr]


def test_a_file_that_cannot_be_read_is_named_and_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 40)
    origin = open_origin(folder)
    assert items(origin)["notes/fox.md"] is None
    assert origin.skipped.counts["file too large"] == 1 and origin.skipped.lines[0].startswith(
        f"{folder / 'notes/fox.md'}:1: file too large"
    )
    assert origin.skipped.unnamed == 0


def write_lines(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_lines_are_documents_with_metadata(tmp_path: Path) -> None:
    rows = [
        {
            "_id": "a",
            "title": "T",
            "text": "one",
            "metadata": {"lang": "en", "tags": ["x", "y"], "odd": {"no": 1}},
            "year": 3,
            "none": None,
        },
        {"id": 7, "text": "two"},
        {"text": "three"},
        {"_id": "t", "title": "Only a title", "text": ""},
    ]
    found = items(open_origin(write_lines(tmp_path / "a.jsonl", *rows)))
    assert list(found)[:2] == ["a", "7"] and list(found)[2].startswith("d-")
    a, last = found["a"], found["t"]
    assert (
        a is not None and a.metadata == {"year": 3, "lang": "en", "tags": ["x", "y"]} and a.load().title == "T" and a.load().text == "one"
    )
    assert last is not None and (last.load().title, last.load().text) == ("", "Only a title")


def test_bad_lines_are_named_with_their_number_and_the_rest_is_read(tmp_path: Path) -> None:
    torn, surrogate = '{"_id": "a", "text": "on', '{"_id": "d", "text": "\\ud800"}'
    rows: list[object] = [torn, {"_id": "b", "text": "two"}, {"_id": "b", "text": "again"}, {"_id": "c"}, [1], surrogate]
    path = write_lines(tmp_path / "a.jsonl", *rows, {"_id": "e", "text": "x", "metadata": 3})
    origin = open_origin(path)
    assert list(items(origin)) == ["b"]
    starts = [line.split(": ")[0] for line in origin.skipped.lines]
    assert starts == [f"{path}:{n}" for n in (1, 3, 4, 5, 6, 7)]
    assert sum(origin.skipped.counts.values()) == 6 and origin.skipped.unnamed == 2
    assert origin.skipped.unread == {"c", "d", "e"} and not origin.skipped.emptied


def test_a_list_in_a_folder_is_what_the_folder_holds(folder: Path) -> None:
    write_lines(folder / "corpus.jsonl", {"_id": "a", "text": "one"})
    assert list(items(open_origin(folder))) == ["a"]


def test_names_of_datasets_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    write_lines(tmp_path / "mine" / "corpus.jsonl", {"_id": "a", "text": "one"})
    monkeypatch.setenv("TWOFOLD_DATA", str(tmp_path))
    assert list(items(open_origin("mine"))) == ["a"]


def test_what_is_not_there_and_what_nobody_reads_are_errors(folder: Path) -> None:
    with pytest.raises(DataError, match="no dataset 'nowhere'"):
        open_origin("nowhere")
    with pytest.raises(DataError, match=r"nobody reads \.png; .*\.jsonl, .*\.md"):
        open_origin(folder / "picture.png")
