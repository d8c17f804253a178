"""A corpus of documents, on disk or in memory, behind one small class."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final

from twofold.data.jsonl import OnError, Refused, id_at, parse_line, read_lines, sound, string_at, tolerate
from twofold.errors import DataError
from twofold.records import Document


class _Store(Protocol):
    """Where documents lie: by position, or all in order."""

    def __getitem__(self, position: int, /) -> Document: ...
    def __iter__(self) -> Iterator[Document]: ...


@final
class Corpus:
    """Documents by id and in order. Only ids and positions are in memory when the corpus comes from a file."""

    def __init__(self, ids: Sequence[str], store: _Store) -> None:
        """`store[i]` is the document of `ids[i]`. Use `from_jsonl` or `from_documents`."""
        self.ids: list[str] = list(ids)
        self._position = {identity: position for position, identity in enumerate(self.ids)}
        self._store = store

    @classmethod
    def from_jsonl(cls, path: Path, on_error: OnError = "raise", counts: Counter[str] | None = None) -> Corpus:
        """Reads a BEIR `corpus.jsonl` (`_id`, `title`, `text`) once, remembers where each document begins, and reads it again when asked.

        Raises `DataError` with `file:line:` for a bad line, a bad text or an id seen before; with `on_error="skip"` it is counted in
        `counts` (of documents with the same id the first stays).
        """
        tolerant = tolerate(on_error, counts)
        first_line: dict[str, int] = {}
        offsets = array("Q")
        for number, offset, line in read_lines(path):
            where = f"{path}:{number}"
            with tolerant:
                document = _parse(line, where)
                if document.id in first_line:
                    raise Refused(where, "duplicate document id", f"{document.id!r} is also on line {first_line[document.id]}")
                first_line[document.id] = number
                offsets.append(offset)
        if not first_line:
            raise DataError(f"{path}: no usable document{_counted(tolerant.counts)}")
        return cls(list(first_line), OnDisk(path, offsets, _parse))

    @classmethod
    def from_documents(cls, documents: Iterable[Document]) -> Corpus:
        """A small corpus in memory. Raises `DataError` for an id given twice."""
        kept = tuple(documents)
        ids = [document.id for document in kept]
        if len(set(ids)) < len(ids):
            raise DataError(f"duplicate document id {Counter(ids).most_common(1)[0][0]!r}")
        return cls(ids, kept)

    def select(self, ids: Iterable[str]) -> Corpus:
        """A view of some documents, in this corpus's order; nothing is read or copied. Raises `DataError` for an unknown id."""
        positions = sorted({self._at(identity) for identity in ids})
        return Corpus([self.ids[position] for position in positions], _View(self._store, positions))

    def untitled(self) -> Corpus:
        """A view in which no document has a title: for training on titles as queries."""
        return self.mapped(lambda document: document._replace(title=""))

    def mapped(self, change: Callable[[Document], Document]) -> Corpus:
        """A view of every document as `change` gives it back; nothing is read or copied. `change` must leave the ids alone."""
        return Corpus(self.ids, _Mapped(self._store, change))

    def document(self, identity: str) -> Document:
        """The document of this id. Raises `DataError` when there is none."""
        return self._store[self._at(identity)]

    def _at(self, identity: str) -> int:
        try:
            return self._position[identity]
        except KeyError:
            raise DataError(f"no document has the id {identity!r} (the corpus has {len(self)}, the first is {self.ids[0]!r})") from None

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, identity: object) -> bool:
        return identity in self._position

    def __iter__(self) -> Iterator[Document]:
        return iter(self._store)


@dataclass(frozen=True)
class OnDisk:
    """Lines of a file by their byte offsets. It is opened for every access: no handle to share between threads or to lose in a fork."""

    path: Path
    offsets: array[int]
    parse: Callable[[bytes, str], Document]
    """From a line, and where it is for an error, to its document."""

    def __getitem__(self, position: int, /) -> Document:
        with self.path.open("rb") as file:
            return self._read(file, position)

    def __iter__(self) -> Iterator[Document]:
        with self.path.open("rb") as file:
            for position in range(len(self.offsets)):
                yield self._read(file, position)

    def _read(self, file: Any, position: int) -> Document:
        file.seek(self.offsets[position])
        return self.parse(file.readline(), f"{self.path} (changed while in use?) at byte {self.offsets[position]}")


@dataclass(frozen=True)
class _View:
    store: _Store
    positions: list[int]

    def __getitem__(self, position: int, /) -> Document:
        return self.store[self.positions[position]]

    def __iter__(self) -> Iterator[Document]:
        return (self.store[position] for position in self.positions)


@dataclass(frozen=True)
class _Mapped:
    store: _Store
    change: Callable[[Document], Document]

    def __getitem__(self, position: int, /) -> Document:
        return self.change(self.store[position])

    def __iter__(self) -> Iterator[Document]:
        return map(self.change, self.store)


def _parse(line: bytes, where: str) -> Document:
    record = parse_line(line, where) or {}
    title = string_at(record, "title", where) if record.get("title") is not None else ""
    document = Document(id_at(record, "_id", where), sound(title, where), sound(string_at(record, "text", where), where))
    if not document.body:
        raise Refused(where, "empty text", f"document {document.id!r} has neither title nor text")
    return document


def _counted(counts: Counter[str]) -> str:
    return f" ({', '.join(f'{count} × {kind}' for kind, count in counts.items())})" if counts else ""
