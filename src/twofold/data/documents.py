"""Documents without judgements as a dataset: their titles, or their first sentences, become queries for the rest of them.

A document gives its title as a query, or, where it has none, its first sentence, and loses what it gave: the answer must not
stand in the document. That holds for the whole corpus, whichever split a query is in: train, dev and test search the same
documents, and if only those of one split lacked their titles, a model could tell them from the others by that alone. A
document that is too short to give a query stays whole, is counted, and is there to be told from the others.

The inverse cloze task of Lee et al. 2019 (https://arxiv.org/abs/1906.00300), with the first sentence and always taken out.
"""

from __future__ import annotations

import hashlib
import os
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from twofold.data.beir import Parts
from twofold.data.corpus import Corpus, OnDisk
from twofold.data.jsonl import (
    MAX_TEXT_BYTES,
    OnError,
    Refused,
    clean,
    id_at,
    parse_line,
    read_jsonl,
    read_lines,
    sound,
    string_at,
    tolerate,
)
from twofold.data.pairs import text_id
from twofold.data.splits import bucket, lot, normalised
from twofold.errors import DataError
from twofold.records import Document, Qrels

LISTS = ("corpus.jsonl", "documents.jsonl")
"""The file of a folder that holds documents, one a line."""
TEXTS = (".txt", ".md", ".markdown")
"""The files of a folder that are a document each."""
MIN_TITLE, MIN_SENTENCE, MAX_SENTENCE, MIN_REST = 3, 15, 600, 30
"""Characters of a title and of a first sentence that make a query, and of what must be left of the document."""
HELD_OUT = 1000
"""At most so many queries of dev, and of test: a tenth of a large collection would take hours to evaluate."""
RULES = "documents 1"
"""Part of the fingerprint: other rules make other queries of the same files."""

_SHORTENED = "".join(rf"(?<!\b{word})" for word in ("[A-Z]", "e\\.g", "i\\.e", "[DMS]r", "Mrs", "St", "vs", "cf", "No", "Fig", "approx"))
_END = re.compile(rf"(?:{_SHORTENED}\.|[!?])[\"'”\u2019)\]]*(?=\s)|[。\uff01\uff1f][”』」]*|\n[ \t]*\n")
_HEADING = re.compile(r"#{1,6}[ \t]+\S")
_FRONT = re.compile(r"---[ \t]*\n(.*?\n)?---[ \t]*(?:\n|\Z)", re.DOTALL)


class Given(NamedTuple):
    """What a document gives: a query, and itself without it."""

    query: str
    rest: Document


def given_query(document: Document) -> Given | None:
    """The query that a document gives and what is left of it; None where one of them would be too short."""
    title = " ".join(document.title.split())
    if len(title) > MAX_SENTENCE:
        return None
    if len(title) >= MIN_TITLE:
        rest = _without_title(document.text, title)
        return Given(title, document._replace(title="", text=rest)) if len(rest) >= MIN_REST else None
    sentence, rest = first_sentence(document.text)
    return Given(sentence, document._replace(text=rest)) if sentence else None


def without_query(document: Document) -> Document:
    """The document as it stands in the corpus: without the query that it gave, if it gave one."""
    given = given_query(document)
    return document if given is None else given.rest


def first_sentence(text: str) -> tuple[str, str]:
    """The first sentence on one line, and the rest; both empty where either would be too short, or no sentence ends soon.

    A sentence ends with its sign and a space, or with a blank line; one that is very short takes the next along.
    """
    text = text.strip()
    for end in _END.finditer(text, 0, MAX_SENTENCE):
        sentence, rest = " ".join(text[: end.end()].split()), text[end.end() :].strip()
        if len(rest) < MIN_REST:
            break
        if len(sentence) >= MIN_SENTENCE:
            return sentence, rest
    return "", ""


def _without_title(text: str, title: str) -> str:
    """The text without a first line that says the title again."""
    text = text.strip()
    line, _, rest = text.partition("\n")
    return rest.strip() if len(line) < 2 * len(title) + 20 and normalised(line) == normalised(title) else text


def documents_in(place: Path) -> bool:
    """Whether a file or a folder holds documents and nothing else: a list of them, or text files and no JSONL."""
    if place.is_file():
        return place.suffix in TEXTS or (place.suffix == ".jsonl" and _lists_documents(place))
    return any((place / name).is_file() for name in LISTS) or (not any(place.glob("*.jsonl")) and any(_text_files(place)))


def _lists_documents(path: Path) -> bool:
    """Whether the first line that can be read has a text, and is neither a pair nor a labelled text."""
    first = next((record for _, _, record in read_jsonl(path, "skip")), {})
    return "text" in first and not {"query", "positive", "label"} & set(first)


def read_documents(place: Path, on_error: OnError, counts: Counter[str]) -> Parts:
    """Reads a file of `{"_id": …, "title": …, "text": …}` lines (only `text` must be there), a folder with one, or a folder of text files.

    Texts stay on disk; the queries are kept in memory. Splits are by the sha256 of the documents' ids: a tenth for dev, a
    tenth for test (each at most `HELD_OUT`), the rest for train. Documents that give the same query, or that are the same but
    for their query, are all relevant to it. Without `_id`, the id is made from the text, and a document that is there again is
    counted and left out. Raises `DataError` with `file:line:` for what cannot be read (or skips and counts it), and where no
    document gives a query.
    """
    lists = [place] if place.is_file() and place.suffix not in TEXTS else [place / name for name in LISTS if (place / name).is_file()]
    if len(lists) > 1:
        raise DataError(f"{place}: both {' and '.join(path.name for path in lists)}; keep one of them")
    found = _Gathered()
    files: tuple[Path, ...]
    if lists:
        corpus, files = _read_list(lists[0], on_error, counts, found), (lists[0],)
    else:
        corpus, files = _read_folder(place, on_error, counts, found)
    if found.too_short:
        counts["document too short to give a query"] += found.too_short
    if not found.asked:
        raise DataError(
            f"{place}: none of {len(corpus)} documents gives a query; needed is a title of {MIN_TITLE} or a first sentence of"
            f" {MIN_SENTENCE} to {MAX_SENTENCE} characters, and {MIN_REST} characters after it"
        )
    queries, judged = found.judgements()
    return Parts(corpus.mapped(without_query), queries, judged, tuple(files), rules=RULES)


@dataclass
class _Gathered:
    """Who asks what, and which documents are alike once their query is taken away."""

    asked: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Normalised query → the documents that give it."""
    words: dict[str, str] = field(default_factory=dict)
    """Normalised query → as it is first written."""
    alike: dict[bytes, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Hash of what is left of a document → the documents of which the same is left."""
    left: dict[str, bytes] = field(default_factory=dict)
    """Document that gave a query → that hash."""
    too_short: int = 0

    def add(self, document: Document) -> None:
        given = given_query(document)
        body = (document if given is None else given.rest).body
        left = hashlib.blake2b(" ".join(body.split()).encode(), digest_size=12).digest()
        self.alike[left].append(document.id)
        if given is None:
            self.too_short += 1
            return
        key = normalised(given.query)
        self.asked[key].append(document.id)
        self.words.setdefault(key, given.query)
        self.left[document.id] = left

    def judgements(self) -> tuple[dict[str, str], Mapping[str, Qrels]]:
        """Query id → text, and split → query id → document id → 1. A query is named, and put into its split, by one of its documents."""
        names = {min(ids, key=lot): key for key, ids in self.asked.items()}
        judged: dict[str, dict[str, dict[str, int]]] = {"train": {}, "dev": {}, "test": {}}
        for split, owner in _splits(list(names)):
            relevant = (alike for document in self.asked[names[owner]] for alike in self.alike[self.left[document]])
            judged[split][f"q:{owner}"] = dict.fromkeys(relevant, 1)
        return {f"q:{owner}": self.words[key] for owner, key in names.items()}, {split: rows for split, rows in judged.items() if rows}


def _splits(ids: list[str]) -> Iterator[tuple[str, str]]:
    """(split, id) for every id; of three or more at least one is for test (dev is cut from train where there is none)."""
    held = {split: sorted((one for one in ids if bucket(one) == at), key=lot)[:HELD_OUT] for split, at in (("dev", 0), ("test", 1))}
    if not held["test"] and len(ids) > 2:
        held["test"] = [max(ids, key=lot)]
    places = {one: split for split, chosen in held.items() for one in chosen}
    return ((places.get(one, "train"), one) for one in ids)


def _read_list(path: Path, on_error: OnError, counts: Counter[str], found: _Gathered) -> Corpus:
    tolerant = tolerate(on_error, counts)
    lines: dict[str, int] = {}
    offsets = array("Q")
    for number, offset, line in read_lines(path):
        where = f"{path}:{number}"
        with tolerant:
            document, named = _parse(line, where)
            if document.id in lines and named:
                raise Refused(where, "duplicate document id", f"{document.id!r} is also on line {lines[document.id]}")
            if document.id in lines:
                counts["repeated document"] += 1
                continue
            lines[document.id] = number
            offsets.append(offset)
            found.add(document)
    if not lines:
        raise DataError(f'{path}: no usable document; a line is {{"text": …[, "title": …, "_id": …]}}; skipped: {dict(counts)}')
    return Corpus(list(lines), OnDisk(path, offsets, lambda line, where: _parse(line, where)[0]))


def _parse(line: bytes, where: str) -> tuple[Document, bool]:
    """The document of a line, and whether the line names its id."""
    record = parse_line(line, where) or {}
    title = string_at(record, "title", where) if record.get("title") is not None else ""
    text = sound(string_at(record, "text", where), where)
    clean(f"{title} {text}", where)
    named = record.get("_id") is not None
    identity = id_at(record, "_id", where) if named else text_id("d", f"{title}\n{text}")
    return Document(identity, title, text), named


def _read_folder(place: Path, on_error: OnError, counts: Counter[str], found: _Gathered) -> tuple[Corpus, tuple[Path, ...]]:
    """A document per file, named by its path below the folder."""
    tolerant = tolerate(on_error, counts)
    root = place if place.is_dir() else place.parent
    names: list[str] = []
    for path in _text_files(place) if place.is_dir() else [place]:
        with tolerant:
            document = read_text_file(root, path.relative_to(root).as_posix())
            names.append(document.id)
            found.add(document)
    if not names:
        raise DataError(f"{place}: no usable text file ({', '.join(TEXTS)}); skipped: {dict(counts)}")
    return Corpus(names, _TextFiles(root, names)), tuple(root / name for name in names)


def _text_files(folder: Path) -> Iterator[Path]:
    """The text files below a folder in a fixed order, without hidden files and folders; links to folders are not followed."""
    for at, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(at, name) for name in sorted(files) if not name.startswith(".") and Path(name).suffix.lower() in TEXTS)


def read_text_file(root: Path, name: str) -> Document:
    """The document in `root/name`; its id is `name`. The title of a Markdown file is its front matter's, else its first heading.

    Raises `Refused` with `file:line:` for a file that is not UTF-8, holds a NUL, is blank or is too long.
    """
    path = root / name
    if not set("\t\r\n").isdisjoint(name):
        raise Refused(repr(str(path)), "bad file name", "it holds a tab or a line end")
    sound(name, repr(str(path)))
    with path.open("rb") as file:
        content = file.read(MAX_TEXT_BYTES + 1)
    try:
        text = content.decode("utf-8-sig") if len(content) <= MAX_TEXT_BYTES else " " * (MAX_TEXT_BYTES + 1)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Refused(f"{path}:{line}", "not UTF-8", f"byte 0x{content[error.start]:02x}") from None
    if len(content) >= MAX_TEXT_BYTES:
        raise Refused(f"{path}:1", "text too long", f"{path.stat().st_size:,} bytes, at most {MAX_TEXT_BYTES - 1:,} are read")
    text = text.replace("\r\n", "\n").strip()
    clean(text, f"{path}:{text.count(chr(10), 0, max(text.find(chr(0)), 0)) + 1}")
    title, text = _markdown(text) if path.suffix.lower() != ".txt" else ("", text)
    return Document(name, title, text)


def _markdown(text: str) -> tuple[str, str]:
    """Title and text of a Markdown file; a file that is nothing but a title keeps it as its text."""
    title, body = "", text
    if front := _FRONT.match(text):
        named = (line.removeprefix("title:") for line in (front[1] or "").splitlines() if line.startswith("title:"))
        title, body = next(named, "").strip().strip("\"'"), text[front.end() :].strip()
    if _HEADING.match(body):
        line, _, body = body.partition("\n")
        title, body = title or line.strip("# \t"), body.strip()
    return (title, body) if body else ("", text)


@dataclass(frozen=True)
class _TextFiles:
    """Documents that are a file each, read when they are asked for."""

    root: Path
    names: list[str]

    def __getitem__(self, position: int, /) -> Document:
        return read_text_file(self.root, self.names[position])

    def __iter__(self) -> Iterator[Document]:
        return map(partial(read_text_file, self.root), self.names)
