"""All passages in memory and one file, every search exact: for tests, and for a few thousand passages.

Shapes: M passages, D features.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold.errors import CheckpointError
from twofold.ranking import Bm25, exact_top_k
from twofold.records import Document
from twofold.search.stores import Known, Match, Passage, Where, tags, wanted
from twofold.search.stores._seals import flush_folder

FILE = "passages.npz"
"""Written whole after every change; every part of a zip file has its checksum."""


class ExactStore:
    """See `Store`. Without a folder, nothing is written."""

    def __init__(self, folder: Path | None, width: int) -> None:
        """Raises CheckpointError for a file that cannot be read or holds vectors of another width."""
        self.folder, self.width = folder, width
        self._state = _State((), np.zeros((0, width), np.float32))
        if folder is not None and (folder / FILE).is_file():
            self._state = _read(folder / FILE, width)

    def upsert(self, passages: Sequence[Passage], vector_ND: NDArray[np.float32], *, new: bool = False) -> None:  # noqa: ARG002
        """See `Store`."""
        kept = self._state.without({passage.document for passage in passages})
        self._change(_State((*kept.passages, *passages), np.concatenate([kept.vector_MD, vector_ND], dtype=np.float32)))

    def delete(self, documents: Iterable[str]) -> None:
        """See `Store`."""
        self._change(self._state.without(set(documents)))

    def search(self, vector_D: NDArray[np.float32], k: int, where: Where | None = None) -> list[Match]:
        """See `Store`."""
        state = self._state
        places = state.allowed(where)
        vector_MD = state.vector_MD if len(places) == len(state.passages) else state.vector_MD[places]  # all of them are not copied
        found, scores = exact_top_k(vector_D[None].astype(np.float32), [vector_MD], k)
        return [Match(state.passages[places[i]], float(score)) for i, score in zip(found[0], scores[0], strict=True)]

    def lexical(self, text: str, k: int, where: Where | None = None) -> list[Match]:
        """See `Store`."""
        state = self._state
        if state.words is None:
            return []
        allowed = {state.passages[i].id for i in state.allowed(where)}
        scores = state.words.run({"": text}, len(state.passages))[""]
        return [Match(state.passages[state.place[each]], score) for each, score in scores.items() if each in allowed][:k]

    def get(self, ids: Sequence[str]) -> list[Passage]:
        """See `Store`."""
        state = self._state
        return [state.passages[state.place[identity]] for identity in ids if identity in state.place]

    def documents(self) -> dict[str, Known]:
        """See `Store`."""
        return {passage.document: Known(passage.digest, passage.origin) for passage in self._state.passages}

    def count(self) -> int:
        """See `Store`."""
        return len(self._state.passages)

    def optimize(self) -> None:
        """Nothing to do."""

    def facts(self) -> dict[str, Any]:
        """See `Store`."""
        return {"kind": "exact", "passages": self.count(), "vectors": "exact", "words": "bm25s"}

    def close(self) -> None:
        """Nothing is held."""

    def _change(self, state: _State) -> None:
        if self.folder is not None:
            _write(self.folder / FILE, state)
        self._state = state


class _State:
    """What there is after some change; never changed itself, so that a search sees one state."""

    def __init__(self, passages: tuple[Passage, ...], vector_MD: NDArray[np.float32]) -> None:
        self.passages, self.vector_MD = passages, vector_MD

    @cached_property
    def place(self) -> dict[str, int]:
        return {passage.id: place for place, passage in enumerate(self.passages)}

    @cached_property
    def words(self) -> Bm25 | None:
        """None where no passage holds a word that BM25 counts."""
        try:
            return Bm25(Document(passage.id, passage.title, passage.text) for passage in self.passages)
        except ValueError:
            return None

    @cached_property
    def tags(self) -> list[set[str]]:
        return [set(tags(passage.metadata)) for passage in self.passages]

    def allowed(self, where: Where | None) -> Sequence[int]:
        """Places of the passages that a condition lets through, in order."""
        every = range(len(self.passages))
        lists = wanted(where)
        return every if not lists else [place for place in every if all(not self.tags[place].isdisjoint(any_of) for any_of in lists)]

    def without(self, documents: set[str]) -> _State:
        kept = [place for place, passage in enumerate(self.passages) if passage.document not in documents]
        return _State(tuple(self.passages[place] for place in kept), self.vector_MD[kept])


def _write(path: Path, state: _State) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    content = json.dumps([asdict(passage) for passage in state.passages]).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, vectors=state.vector_MD, passages=np.frombuffer(content, np.uint8))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(f"{path}: could not be written: {error.strerror or error}") from error


def _read(path: Path, width: int) -> _State:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as parts:
            vector_MD, content = parts["vectors"], parts["passages"].tobytes()
        passages = tuple(Passage(**each) for each in json.loads(content))
        if vector_MD.shape != (len(passages), width) or vector_MD.dtype != np.float32:
            raise ValueError(f"vectors {vector_MD.shape} of {vector_MD.dtype} for {len(passages)} passages of width {width}")
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}; index again into a new folder") from error
    return _State(passages, vector_MD)


def build(folder: Path | None, width: int) -> ExactStore:
    """In memory, and in `folder` if there is one."""
    return ExactStore(folder, width)
