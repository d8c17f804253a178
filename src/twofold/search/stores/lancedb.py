"""LanceDB: vectors, texts and an index of words in one table on disk, without a server; the default.

Every change is one commit of Lance. Lance leaves it to the system when files reach the disk, and has no checksums, so each commit is
flushed and its files are sealed (`_seals`) before it is acknowledged. Shapes: N passages, D features.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from twofold.errors import CheckpointError, ConfigError, TwofoldError
from twofold.search.stores import Known, Match, Passage, Where, tags, wanted
from twofold.search.stores._seals import Ledger

log = logging.getLogger(__name__)

TABLE, LEDGER = "passages", "seals.jsonl"
TEXT = ("id", "document", "title", "body", "source", "metadata", "origin", "digest")
"""Columns. `body` is the title, a line end and the text: words are looked up in both, and nothing is stored twice."""
CHANGING = ("latest_version_hint.json",)
"""The one file that Lance writes more than once."""
APPROXIMATE_ABOVE = 50_000
"""Passages from which on vectors are searched through an index. It is the faster from about 20,000 on; up to here looking at all takes
some 30 to 45 ms of CPU and misses nothing (between the sizes of results/bench/growth.json)."""
PROBES, REFINE = 64, 4
"""Parts of the vectors that an approximate search looks into, and how many times k candidates it then compares exactly: the least time at
which a million vectors have a recall@100 of .95 (.96; a hundred thousand .99; results/bench/growth.json)."""
KEPT = timedelta(minutes=10)
"""How long states that were replaced stay, for searches that are still on them."""
NAMES_AT_ONCE = 500
"""Documents of one condition."""


class LanceStore:
    """See `Store`."""

    def __init__(self, folder: Path, width: int, approximate_above: int, probes: int, refine: int, language: str) -> None:
        try:
            import lancedb
        except ImportError:
            raise ConfigError("the store 'lancedb' needs LanceDB: pip install 'twofold[index]'") from None
        self.folder, self.width, self.language = folder, width, language
        self.approximate_above, self.probes, self.refine = approximate_above, probes, refine
        self.schema = _schema(width)
        folder.mkdir(parents=True, exist_ok=True)
        self._ledger = Ledger(folder / f"{TABLE}.lance", folder / LEDGER, CHANGING)
        self._ledger.verify()
        with _named(folder):
            self._db: Any = lancedb.connect(folder, read_consistency_interval=timedelta(0))
        self._table: Any = self._open()
        self._approximate = self._has_index("vector")

    def upsert(self, passages: Sequence[Passage], vector_ND: NDArray[np.float32], *, new: bool = False) -> None:
        """See `Store`."""
        rows = self._rows(passages, vector_ND)
        with _named(self.folder):
            if new:
                self._table.add(rows)
            else:
                documents = dict.fromkeys(passage.document for passage in passages)
                change = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
                change.when_not_matched_by_source_delete(_one_of("document", documents)).execute(rows)
            self._ledger.seal(self._table.version)

    def delete(self, documents: Iterable[str]) -> None:
        """See `Store`."""
        names = list(dict.fromkeys(documents))
        with _named(self.folder):
            for start in range(0, len(names), NAMES_AT_ONCE):
                self._table.delete(_one_of("document", names[start : start + NAMES_AT_ONCE]))
            self._ledger.seal(self._table.version)

    def search(self, vector_D: NDArray[np.float32], k: int, where: Where | None = None) -> list[Match]:
        """See `Store`."""
        with _named(self.folder):
            asked = self._table.search(np.asarray(vector_D, np.float32), query_type="vector", vector_column_name="vector")
            asked = asked.distance_type("cosine").select([*TEXT, "_distance"]).limit(k)
            if self._approximate:
                asked = asked.nprobes(self.probes).refine_factor(self.refine)
            found = _narrowed(asked, where).to_list()
        return [Match(_passage(row), 1 - float(row["_distance"])) for row in found]

    def lexical(self, text: str, k: int, where: Where | None = None) -> list[Match]:
        """See `Store`."""
        from lancedb import query

        words: Any = query.MatchQuery
        with _named(self.folder):
            asked = self._table.search(words(text, "body"), query_type="fts").select([*TEXT, "_score"]).limit(k)
            found = _narrowed(asked, where).to_list()
        return [Match(_passage(row), float(row["_score"])) for row in found]

    def get(self, ids: Sequence[str]) -> list[Passage]:
        """See `Store`."""
        if not ids:
            return []
        with _named(self.folder):
            found = self._table.search().where(_one_of("id", ids)).select(list(TEXT)).limit(len(ids)).to_list()
        passages = {row["id"]: _passage(row) for row in found}
        return [passages[identity] for identity in ids if identity in passages]

    def documents(self) -> dict[str, Known]:
        """See `Store`."""
        known: dict[str, Known] = {}
        with _named(self.folder):
            columns = ["document", "digest", "origin"]
            for rows in self._table.search().select(columns).limit(max(self.count(), 1)).to_batches():
                parts = [rows.column(name).to_pylist() for name in columns]
                known |= {document: Known(digest, origin) for document, digest, origin in zip(*parts, strict=True)}
        return known

    def count(self) -> int:
        """See `Store`."""
        with _named(self.folder):
            return int(self._table.count_rows())

    def optimize(self) -> None:
        """See `Store`."""
        from lancedb.index import IvfFlat, IvfRq

        with _named(self.folder):
            count = self.count()
            if count >= self.approximate_above and not self._has_index("vector"):
                kind = IvfFlat if self.width % 8 else IvfRq  # codes of one bit a feature, in whole bytes; Lance keeps its parts to size
                self._table.create_index("vector", config=kind(distance_type="cosine"))
                self._approximate = True
            self._ledger.clean()
            self._table.optimize(cleanup_older_than=KEPT)
            self._ledger.rewrite(self._table.version)

    def facts(self) -> dict[str, Any]:
        """See `Store`."""
        import lancedb

        vectors = f"approximate: IVF, {self.probes} probes, {self.refine} k refined" if self._approximate else "exact"
        words = f"BM25, {self.language}"
        return {"kind": "lancedb", "version": lancedb.__version__, "passages": self.count(), "vectors": vectors, "words": words}

    def verify(self) -> None:
        """Compares every file with its seal, whatever the size. Raises CheckpointError naming the first that is not as it was written."""
        self._ledger.verify(everything=True)

    def close(self) -> None:
        """See `Store`."""
        self._table = self._db = None

    def _open(self) -> Any:
        """The table, made if there is none. One whose newest state was torn by a crash goes back to the state before."""
        if not (self.folder / f"{TABLE}.lance").is_dir():
            return self._make()
        self._set_torn_aside()
        with _named(self.folder):
            table = self._db.open_table(TABLE)
            if table.version < (last := self._ledger.version):
                raise CheckpointError(
                    f"{self.folder}: at state {table.version}, and {last} was acknowledged; index again into a new folder"
                )
            if table.schema != self.schema:
                raise CheckpointError(
                    f"{self.folder}: its table is not one for vectors of {self.width} features; index again into a new folder"
                )
        return table

    def _make(self) -> Any:
        from lancedb.index import FTS

        if self._ledger.version:
            raise CheckpointError(f"{self.folder}: the table is missing, and it held passages; index again into a new folder")
        with _named(self.folder):
            table = self._db.create_table(TABLE, schema=self.schema)
            table.create_index("body", config=FTS(language=self.language, stem=True, remove_stop_words=True, ascii_folding=True))
            self._ledger.seal(table.version)
        return table

    def _set_torn_aside(self) -> None:
        """Renames states newer than the last acknowledged one that a crash left without content; Lance would not open over them."""
        for path in sorted((self.folder / f"{TABLE}.lance" / "_versions").glob("*.manifest")):
            name = path.relative_to(self.folder / f"{TABLE}.lance").as_posix()
            if name not in self._ledger.seals and not _whole(path):
                log.warning("%s: torn by a crash, set aside; going back to the state before it", path)
                path.rename(path.with_name(f".{path.name}.torn"))

    def _has_index(self, column: str) -> bool:
        with _named(self.folder):
            return any(column in index.columns for index in self._table.list_indices())

    def _rows(self, passages: Sequence[Passage], vector_ND: NDArray[np.float32]) -> pa.Table:
        vectors = np.ascontiguousarray(vector_ND, np.float32)
        if vectors.shape != (len(passages), self.width):
            raise ValueError(f"vectors {vectors.shape} for {len(passages)} passages of width {self.width}")
        columns: dict[str, Any] = {name: [getattr(each, name) for each in passages] for name in TEXT if name not in ("body", "metadata")}
        columns["body"] = [f"{each.title}\n{each.text}" for each in passages]
        columns["metadata"] = [json.dumps(dict(each.metadata), sort_keys=True) for each in passages]
        columns["tags"] = [tags(each.metadata) for each in passages]
        columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), self.width)
        return pa.table(columns, schema=self.schema)


def _schema(width: int) -> pa.Schema:
    texts = [pa.field(name, pa.string(), nullable=False) for name in TEXT]
    return pa.schema([*texts, pa.field("tags", pa.list_(pa.string())), pa.field("vector", pa.list_(pa.float32(), width))])


def _passage(row: Mapping[str, Any]) -> Passage:
    given = {name: row[name] for name in TEXT if name not in ("body", "metadata")}
    return Passage(**given, text=row["body"][len(row["title"]) + 1 :], metadata=json.loads(row["metadata"]))


def _narrowed(asked: Any, where: Where | None) -> Any:
    """A query that looks only at what a condition lets through."""
    if not where:
        return asked
    lists = (f"array_has_any(tags, [{', '.join(map(_quoted, any_of))}])" for any_of in wanted(where))
    return asked.where(" AND ".join(lists), prefilter=True)


def _one_of(column: str, values: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(map(_quoted, values))})"


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _whole(path: Path, patience: float = 0.2) -> bool:
    """Whether a manifest ends as Lance ends its files, now or in a moment: another process may be writing it."""
    if not _ended(path) and patience:
        time.sleep(patience)
    return _ended(path)


def _ended(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        if file.tell() < 16:
            return False
        file.seek(-4, os.SEEK_END)
        return file.read() == b"LANC"


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Whatever Lance raises, its panics too, as an error that names the index."""
    try:
        yield
    except (TwofoldError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{folder}: LanceDB: {first[:300]}") from error


def build(
    folder: Path,
    width: int,
    approximate_above: int = APPROXIMATE_ABOVE,
    probes: int = PROBES,
    refine: int = REFINE,
    language: str = "English",
) -> LanceStore:
    """`language`: whose stems and stop words the index of words knows (as Lance names them)."""
    return LanceStore(folder, width, approximate_above, probes, refine, language)
