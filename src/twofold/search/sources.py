"""Where documents come from: a folder of files, one file, or JSON lines. Whether one changed is known before it is parsed."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twofold.data.documents import LISTS
from twofold.data.jsonl import Empty, Refused, clean, id_at, parse_line, read_lines, sound, string_at
from twofold.data.pairs import text_id
from twofold.data.sources import locate
from twofold.errors import DataError
from twofold.search import formats
from twofold.search.formats import Page
from twofold.search.stores import Metadata, Value

MAX_FILE_BYTES = 256 * 1024 * 1024
"""No file is read that is larger: it is in memory as a whole while it is parsed."""
SHOWN = 100
"""So many complaints are kept word for word; all are counted."""


@dataclass
class Skipped:
    """What could not be read."""

    counts: Counter[str] = field(default_factory=Counter)
    """By kind."""
    lines: list[str] = field(default_factory=list)
    """The first ones, each beginning with `file:line:` where there is a line."""
    unnamed: int = 0
    """How many of them have no id: nobody can say which document of an index they were."""
    emptied: set[str] = field(default_factory=set)
    """Documents that hold no text."""
    unread: set[str] = field(default_factory=set)
    """Documents that are there, with something in them that cannot be read."""

    def tell(self, error: Refused) -> None:
        """Counts one."""
        self.counts[error.kind] += 1
        if len(self.lines) < SHOWN:
            self.lines.append(str(error))

    def add(self, error: Refused, document: str | None) -> None:
        """Counts one, and notes what that means for the document that has this id; None where nobody can say which it is."""
        self.tell(error)
        if document is None:
            self.unnamed += 1
        else:
            (self.emptied if isinstance(error, Empty) else self.unread).add(document)

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        sets = {"emptied": sorted(self.emptied), "unread": sorted(self.unread)}
        return {"counts": dict(self.counts), "lines": self.lines, "unnamed": self.unnamed, **sets}

    def include(self, other: Mapping[str, Any]) -> None:
        """Adds what another has skipped, as its `as_dict` says."""
        self.counts.update(other["counts"])
        self.lines += other["lines"]
        self.unnamed += other["unnamed"]
        self.emptied.update(other.get("emptied", ()))  # which shards of earlier versions do not say
        self.unread.update(other.get("unread", ()))


@dataclass(frozen=True)
class Item:
    """A document that is not parsed yet."""

    id: str
    digest: str
    """Of its bytes."""
    source: str
    """The file that it stands in."""
    metadata: Metadata
    load: Callable[[], Page]
    """Raises `Refused`."""


@dataclass(frozen=True)
class Origin:
    """A folder or file of documents."""

    path: Path
    prefix: str = ""
    """Put before every id, so that two folders may hold files of the same name."""
    skipped: Skipped = field(default_factory=Skipped)
    """Filled while documents are read."""

    @property
    def name(self) -> str:
        """What an index knows it by."""
        return str(self.path.resolve())

    def items(self) -> Iterator[Item | str]:
        """Every document in a fixed order; the bare id of a file that could not be read. `skipped` says what else is left out."""
        return self._lines(self.path) if self.path.is_file() and self.path.suffix == ".jsonl" else self._files()

    def _files(self) -> Iterator[Item | str]:
        root = self.path if self.path.is_dir() else self.path.parent
        for path in _walk(self.path, self.skipped.counts) if self.path.is_dir() else [self.path]:
            name = path.relative_to(root).as_posix()
            try:
                sound(name, repr(str(path)))
                yield self._file(path, name)
            except Refused as error:
                self.skipped.add(error, self.prefix + name)
                yield self.prefix + name

    def _file(self, path: Path, name: str) -> Item:
        form = formats.suffixes()[path.suffix.lower()]
        try:
            size = path.stat().st_size
            if size > MAX_FILE_BYTES:
                raise Refused(f"{path}:1", "file too large", f"{size:,} bytes, at most {MAX_FILE_BYTES:,} are read")
            content = path.read_bytes()
        except OSError as error:
            raise Refused(str(path), "cannot be opened", str(error.strerror)) from error
        metadata: dict[str, Value] = {"type": form}
        if "/" in name:
            metadata["folder"] = name.rpartition("/")[0]
        where = str(path)
        return Item(self.prefix + name, _digest(content), name, metadata, lambda: formats.read(form, content, where))

    def _lines(self, path: Path) -> Iterator[Item | str]:
        """One document a line: `text`, and perhaps `_id`, `title`, `metadata`; other plain values count as metadata."""
        first: dict[str, int] = {}
        for number, _, line in read_lines(path):
            where = f"{path}:{number}"
            identity = ""
            try:
                record = parse_line(line, where)
                if record is None:
                    continue
                identity = _identity(record, where)
                if first.setdefault(identity, number) != number:
                    self.skipped.tell(Refused(where, "duplicate document id", f"{identity!r} is also on line {first[identity]}"))
                    continue
                (title, text), metadata = _text(record, where), _metadata(record, where)
            except Refused as error:
                self.skipped.add(error, self.prefix + identity if identity else None)
                continue
            page = Page(title, text) if text.strip() else Page("", title)
            yield Item(self.prefix + identity, _digest(line.strip()), path.name, metadata, lambda page=page: page)  # type: ignore[misc]


def open_origin(spec: str | Path, prefix: str = "") -> Origin:
    """The documents of a folder, a file, or a dataset by name (`pydocs`, a BEIR folder: its corpus).

    Raises DataError where there is none, and for a file whose kind nobody reads.
    """
    path = Path(spec)
    if not path.exists():
        path, _ = locate(spec)
    if path.is_dir():
        lists = [path / name for name in LISTS if (path / name).is_file()]
        path = lists[0] if lists else path
    elif path.suffix != ".jsonl" and path.suffix.lower() not in formats.suffixes():
        raise DataError(f"{path}: nobody reads {path.suffix or 'a file without suffix'}; files of these kinds are: {_kinds()}")
    return Origin(path, prefix)


def _kinds() -> str:
    return ", ".join([".jsonl", *sorted(formats.suffixes())])


def _walk(folder: Path, counts: Counter[str]) -> Iterator[Path]:
    """Files that some format reads, without hidden ones; links to folders are not followed. Others are counted by suffix."""
    for at, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            suffix = Path(name).suffix.lower()
            if name.startswith("."):
                continue
            if suffix in formats.suffixes():
                yield Path(at, name)
            else:
                counts[f"{suffix or 'no suffix'}: not a kind that is read"] += 1


def _identity(record: Mapping[str, Any], where: str) -> str:
    """The id that a line says, or one made of its text."""
    key = "_id" if record.get("_id") is not None else "id"
    return id_at(record, key, where) if record.get(key) is not None else text_id("d", "\n".join(_text(record, where)))


def _text(record: Mapping[str, Any], where: str) -> tuple[str, str]:
    """Title and text of a line."""
    title = string_at(record, "title", where) if record.get("title") is not None else ""
    text = sound(string_at(record, "text", where), where)
    clean(f"{title} {text}", where)
    return title, text


def _metadata(record: Mapping[str, Any], where: str) -> Metadata:
    own = record.get("metadata")
    if own is not None and not isinstance(own, dict):
        raise Refused(where, '"metadata" is not an object', f"it is {own!r:.60}")
    found: dict[str, Any] = {}
    for key, value in {**record, **(own or {})}.items():
        values = value if isinstance(value, list) else [value]
        plain = bool(values) and all(isinstance(each, str | int | float | bool) for each in values)
        if key not in ("_id", "id", "title", "text", "metadata") and plain:
            for each in (key, *(each for each in values if isinstance(each, str))):
                sound(each, where)
            found[key] = value
    return found


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
