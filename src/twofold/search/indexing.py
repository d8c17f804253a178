"""Bringing an index up to date: only what changed is encoded, what vanished goes, and a crash loses nothing that was acknowledged.

There is no journal: every passage carries the digest of its document, a document's passages are put in together, and what a store has
acknowledged is on the disk. So the index itself says what is left to do, however the last attempt ended.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold.data.jsonl import Refused
from twofold.errors import DataError
from twofold.records import Encode
from twofold.search.index import Index
from twofold.search.passages import Cut, Spans, passages
from twofold.search.sources import Item, Origin, Skipped
from twofold.search.stores import Known, Passage

BATCH = 256
"""Passages that are encoded and acknowledged together."""
OPTIMIZE_AFTER = 64 * BATCH
"""Passages written after which the store is put in order, and then whenever they have doubled, so that an index is quick to search while it
grows: to put it in order may write all of it again, and after every so many passages that would be quadratic."""

Progress = Callable[[int, int], None]
"""Called with the documents seen and the passages written so far."""
Acknowledged = Callable[[Sequence[str]], None]
"""Called with documents that are on the disk from now on."""


@dataclass
class Report:
    """What was done, in documents (and passages written)."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    deleted: int = 0
    passages: int = 0
    kept: int = 0
    """Documents whose old text stays: what they are now cannot be read, or they are `missing`."""
    missing: int = 0
    """Documents that may have vanished and were kept, since lines that could not be read may have been them."""
    skipped: Skipped = field(default_factory=Skipped)

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        counts = {name: getattr(self, name) for name in ("added", "changed", "unchanged", "deleted", "passages", "kept", "missing")}
        return {**counts, "skipped": dict(self.skipped.counts), "complaints": self.skipped.lines}


@dataclass(frozen=True)
class Batch:
    """Whole documents, ready to be put in."""

    documents: Sequence[str]
    passages: Sequence[Passage]
    vector_ND: NDArray[np.float32] | None = None
    """Where they were encoded before."""


def bring_up_to_date(
    index: Index,
    origin: Origin,
    spans: Spans,
    encode: Encode,
    *,
    prune: bool = False,
    batch: int = BATCH,
    progress: Progress | None = None,
    acknowledged: Acknowledged | None = None,
) -> Report:
    """Makes the index hold what its origin holds; documents of other origins stay as they are. The caller holds the lock.

    `prune`: remove vanished documents even where lines without an id could not be read. Raises DataError where there is no document
    at all (nothing is removed then), and where another origin has given a document of the same id.
    """
    known = index.store.documents()
    report, seen = Report(skipped=origin.skipped), set[str]()

    def wanted() -> Iterator[list[Passage]]:
        for item in origin.items():
            seen.add(item if isinstance(item, str) else item.id)
            if isinstance(item, Item):
                found = _changed(item, known, origin, index.settings.cut, spans, report)
                if found:
                    yield found
            if progress is not None:
                progress(len(seen), report.passages)

    for ready in batches(wanted(), batch):
        put(index, ready, known, encode, report)
        if acknowledged is not None:
            acknowledged(ready.documents)
        if progress is not None:
            progress(len(seen), report.passages)
    remove_vanished(index, origin.name, known, seen, prune, report)
    index.store.optimize()
    return report


def batches(documents: Iterable[list[Passage]], size: int) -> Iterator[Batch]:
    """Whole documents gathered until there are `size` passages."""
    names: list[str] = []
    gathered: list[Passage] = []
    for each in documents:
        names.append(each[0].document)
        gathered += each
        if len(gathered) >= size:
            yield Batch(names, gathered)
            names, gathered = [], []
    if names:
        yield Batch(names, gathered)


def put(index: Index, batch: Batch, known: Mapping[str, Known], encode: Encode, report: Report) -> None:
    """Encodes and writes a batch: documents that are there already in one step, new ones in another."""
    vector_ND = encode([passage.body for passage in batch.passages]) if batch.vector_ND is None else batch.vector_ND
    if not np.isfinite(vector_ND).all():
        bad = batch.passages[int(np.flatnonzero(~np.isfinite(vector_ND).all(axis=1))[0])]
        raise DataError(f"{bad.source}: the vector of passage {bad.id!r} holds NaN or infinity; nothing of this batch was written")
    old = np.array([passage.document in known for passage in batch.passages], dtype=bool)
    for new, chosen in ((True, ~old), (False, old)):
        if chosen.any():
            index.store.upsert([batch.passages[int(i)] for i in np.flatnonzero(chosen)], vector_ND[chosen], new=new)
    changed = sum(document in known for document in batch.documents)
    report.changed += changed
    report.added += len(batch.documents) - changed
    written = report.passages
    report.passages += len(batch.passages)
    if doubled(written, report.passages):
        index.store.optimize()


def doubled(before: int, after: int) -> bool:
    """Whether the passages written have passed `OPTIMIZE_AFTER` or a doubling of it."""
    return (before // OPTIMIZE_AFTER).bit_length() < (after // OPTIMIZE_AFTER).bit_length()


def _changed(item: Item, known: Mapping[str, Known], origin: Origin, how: Cut, spans: Spans, report: Report) -> list[Passage]:
    """The passages of a document that is new or not as it was; none for others, and for what cannot be read."""
    digest, there = digest_of(item, how), known.get(item.id)
    if there is not None and there.origin != origin.name:
        raise DataError(f"document {item.id!r} is in the index from {there.origin}; give those of {origin.name} another name with --prefix")
    if there is not None and there.digest == digest:
        report.unchanged += 1
        return []
    template = Passage("", item.id, "", "", item.source, item.metadata, origin.name, digest)
    try:
        return passages(item.load(), spans, how, template)
    except Refused as error:
        report.skipped.add(error, item.id)
        return []


def digest_of(item: Item, how: Cut) -> str:
    """Of a document's bytes and metadata, and of how it is cut."""
    parts = json.dumps([item.digest, item.source, dict(item.metadata), how.rules], sort_keys=True)
    return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()


def remove_vanished(index: Index, origin: str, known: Mapping[str, Known], seen: set[str], prune: bool, report: Report) -> None:
    """Takes out what an origin once gave and does not give any more, or gives without any text.

    What is there and cannot be read stays as it was, and is counted as kept. Raises DataError where the origin gives nothing at all.
    """
    skipped = report.skipped
    there = seen | skipped.emptied | skipped.unread
    if not there:
        raise DataError(f"{origin}: no document to index{_why(skipped)}; nothing was changed")
    mine = {document for document, each in known.items() if each.origin == origin}
    gone, missing = mine & skipped.emptied, mine - there
    if skipped.unnamed and not prune:
        report.missing = len(missing)
    else:
        gone |= missing
    if gone:
        index.store.delete(sorted(gone))
    report.deleted, report.kept = len(gone), len(mine & skipped.unread) + report.missing


def _why(skipped: Skipped) -> str:
    return f"; skipped: {', '.join(f'{count} × {kind}' for kind, count in skipped.counts.items())}" if skipped.counts else ""
