from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twofold.data import jsonl
from twofold.data.jsonl import clean, id_at, read_jsonl
from twofold.errors import DataError


def records(path: Path, content: bytes) -> list[dict[str, object]]:
    path.write_bytes(content)
    return [record for _, _, record in read_jsonl(path)]


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": 1}\n{"a": 2}\n',
        b'{"a": 1}\n{"a": 2}',
        b'{"a": 1}\r\n{"a": 2}\r\n',
        b'\xef\xbb\xbf{"a": 1}\n{"a": 2}\n',
        b'\n  \n{"a": 1}\n\n{"a": 2}\n\n',
    ],
    ids=["plain", "no last line end", "windows", "byte order mark", "blank lines"],
)
def test_harmless_variations_are_read_alike(tmp_path: Path, content: bytes) -> None:
    assert records(tmp_path / "x.jsonl", content) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b'{"_id": "1", "te', "not valid JSON"),
        (b"{'_id': 1}", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"a": "\xff"}', "not UTF-8"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b"\0", "not valid JSON"),
    ],
)
def test_a_bad_line_is_one_clear_line_or_counted(tmp_path: Path, line: bytes, kind: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    with pytest.raises(DataError) as caught:
        list(read_jsonl(path))
    message = str(caught.value)
    assert message.startswith(f"{path}:2: {kind}")
    assert "\n" not in message
    assert len(message) < len(str(path)) + 200
    counts: Counter[str] = Counter()
    kept = [record for _, _, record in read_jsonl(path, "skip", counts)]
    assert kept[0] == {"a": 1}
    assert counts[kind] >= 1


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 100)
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": "' + b"x" * 1000 + b'"}\n{"a": 2}\n')
    with pytest.raises(DataError, match=":1: line too long"):
        list(read_jsonl(path))
    counts: Counter[str] = Counter()
    assert [(number, record) for number, _, record in read_jsonl(path, "skip", counts)] == [(2, {"a": 2})]
    assert counts == {"line too long": 1}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere.jsonl: there is no such file"):
        list(read_jsonl(tmp_path / "nowhere.jsonl"))


def test_an_unknown_way_of_handling_errors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='"raise" or "skip"'):
        list(read_jsonl(tmp_path, "ignore"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "empty text"),
        (" \n\t", "empty text"),
        ("a\0b", "NUL character: at position 2"),
        ("ab\ud800", r"lone surrogate: U\+D800 at position 3"),
        ("x" * 10_000_000, "text too long: 10,000,000 bytes"),
        ("é" * 5_000_000, "text too long: 10,000,000 bytes"),
    ],
    ids=["empty", "blank", "NUL", "surrogate", "10 MB", "10 MB of two-byte letters"],
)
def test_texts_that_a_tokenizer_cannot_take_are_refused(text: str, kind: str) -> None:
    with pytest.raises(DataError, match=f"^f.jsonl:7: {kind}"):
        clean(text, "f.jsonl:7")


def test_a_good_text_passes_unchanged() -> None:
    assert clean(" Ünïcode 🙂 \u2028", "f:1") == " Ünïcode 🙂 \u2028"


@pytest.mark.parametrize(("value", "expected"), [("42", "42"), (42, "42"), ("a b", "a b")])
def test_ids_are_strings_or_whole_numbers(value: object, expected: str) -> None:
    assert id_at({"_id": value}, "_id", "f:1") == expected


@pytest.mark.parametrize("value", [None, True, 1.5, "", " x", "a\tb", "a\nb", ["x"], "\ud800"])
def test_other_ids_are_refused(value: object) -> None:
    with pytest.raises(DataError, match=r"^f:1: "):
        id_at({"_id": value}, "_id", "f:1")


json_objects = st.dictionaries(
    st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)), max_size=4
)
line_ends = st.sampled_from(["\n", "\r\n", "\n\n"])
calm = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@calm
@given(rows=st.lists(st.tuples(json_objects, line_ends)), ascii_only=st.booleans(), bom=st.booleans())
def test_whatever_is_written_comes_back(tmp_path: Path, rows: list[tuple[dict[str, object], str]], ascii_only: bool, bom: bool) -> None:
    text = "".join(json.dumps(record, ensure_ascii=ascii_only) + end for record, end in rows)
    content = (b"\xef\xbb\xbf" if bom else b"") + text.encode("utf-8")
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    read = list(read_jsonl(path))
    assert [record for _, _, record in read] == [record for record, _ in rows]
    lines = content.split(b"\n")
    for number, offset, record in read:
        again = content[offset:].split(b"\n")[0]
        assert again == lines[number - 1]
        assert json.loads(again.decode("utf-8-sig")) == record


@calm
@given(content=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_by_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    counts: Counter[str] = Counter()
    kept = list(read_jsonl(path, "skip", counts))
    assert len(kept) + counts.total() <= content.count(b"\n") + 1
    if counts:
        with pytest.raises(DataError, match=r"x\.jsonl:\d+: "):
            list(read_jsonl(path))
    else:
        assert list(read_jsonl(path)) == kept
