"""Encoding in shards, for more documents than one process should encode: each shard is a folder, whole or not there, made by anybody.

    shard-00002-of-00008/
      passages.jsonl    one passage a line, as `Passage`
      vectors.f32       their vectors, N × D numbers of 32 bits, in the same order
      facts.json        model, cut, origin, counts
      manifest.json     the sha256 of every file

Which shard a document is in depends on its id alone, so shards can be made in any order, on any machine, again and again. Shapes: N, D.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold.checkpoint import verify, write_folder
from twofold.data.jsonl import Refused
from twofold.data.splits import lot
from twofold.errors import CheckpointError, ConfigError
from twofold.search.index import DEFAULT_STORE, FILE, Index, Settings
from twofold.search.indexing import BATCH, Batch, Progress, Report, batches, digest_of, put, remove_vanished
from twofold.search.passages import Cut, passages
from twofold.search.reader import Reader
from twofold.search.sources import Item, Origin
from twofold.search.stores import Passage

PASSAGES, VECTORS, FACTS = "passages.jsonl", "vectors.f32", "facts.json"
_NAME = re.compile(r"shard-(\d{5})-of-(\d{5})")


def shard_folder(to: Path, shard: int, of: int) -> Path:
    """Where a shard lies. Raises ConfigError for a shard that there cannot be."""
    if not 1 <= of <= 99_999 or not 0 <= shard < of:
        raise ConfigError(f"shard {shard} of {of}: shards are counted from 0 to one less than their number")
    return to / f"shard-{shard:05d}-of-{of:05d}"


def encode_shard(
    origin: Origin, reader: Reader, how: Cut, model: str, to: Path, shard: int, of: int, progress: Progress | None = None
) -> Report | None:
    """Encodes the documents of one shard; None where the shard is there already, whole and made alike.

    Raises CheckpointError where another model, or other settings, made what is there.
    """
    folder = shard_folder(to, shard, of)
    facts = {"model": model, "fingerprint": reader.fingerprint, "identity": reader.identity, "width": reader.width, "size": how.size}
    facts |= {"overlap": how.overlap, "origin": origin.name, "shard": shard, "of": of}
    if folder.exists():
        found = _facts(folder)
        if differ := [key for key in facts if key not in ("identity", "model") and found.get(key) != facts[key]]:
            raise CheckpointError(f"{folder}: is there, made with another {', '.join(differ)}; choose another folder")
        return None
    report = Report(skipped=origin.skipped)

    def write(temporary: Path) -> None:
        names: list[str] = []
        with (temporary / PASSAGES).open("w", encoding="utf-8", newline="\n") as texts, (temporary / VECTORS).open("wb") as vectors:
            for batch in batches(_cut(origin, reader, how, shard, of, names, report), BATCH):
                vectors.write(
                    np.ascontiguousarray(reader.callables.encode_document([each.body for each in batch.passages]), "<f4").tobytes()
                )
                texts.writelines(json.dumps(asdict(passage), ensure_ascii=False) + "\n" for passage in batch.passages)
                report.added += len(batch.documents)
                report.passages += len(batch.passages)
                if progress is not None:
                    progress(len(names), report.passages)
        counts = {"documents": report.added, "passages": report.passages, "names": names, "skipped": report.skipped.as_dict()}
        (temporary / FACTS).write_text(json.dumps({**facts, **counts}) + "\n", encoding="utf-8")

    write_folder(folder, write)
    return report


def open_for(folder: Path, to: Path, store: str | None = None, options: Mapping[str, Any] | None = None) -> Index:
    """The index that shards go into, made if it is not there. Raises CheckpointError as `complete` does; no model is loaded."""
    if (to / FILE).exists():
        return Index.open(to)
    facts = next(iter(complete(folder).values()))
    names = ("model", "fingerprint", "identity", "width", "size", "overlap")
    return Index.make(to, Settings(**{name: facts[name] for name in names}, store=store or DEFAULT_STORE, options=options or {}))


def merge_shards(index: Index, folder: Path, *, prune: bool = False, progress: Progress | None = None) -> Report:
    """Brings an index up to date with shards, as if their documents had been encoded into it. The caller holds the lock.

    Raises CheckpointError for a shard that is missing, damaged or made by another model.
    """
    known, report, names, whole = index.store.documents(), Report(), set[str](), set[str]()
    found = complete(folder)
    for shard, facts in found.items():
        index.settings.check(facts["fingerprint"], facts["identity"], shard)
        names |= set(facts["names"])
        report.skipped.include(facts["skipped"])
        for batch in _batches(shard, facts["width"]):
            whole.update(batch.documents)
            fresh = _changed(batch, {name: known[name].digest for name in batch.documents if name in known}, report)
            if fresh is not None:
                put(index, fresh, known, _nothing, report)
            if progress is not None:
                progress(report.added + report.changed + report.unchanged, report.passages)
    (origin,) = {str(facts["origin"]) for facts in found.values()}
    report.skipped.emptied -= whole  # a shard that was made later knows better
    report.skipped.unread -= whole
    remove_vanished(index, origin, known, names, prune, report)
    index.store.optimize()
    return report


def complete(folder: Path) -> dict[Path, dict[str, Any]]:
    """The shards of a folder with their facts, in order, every file as it was written.

    Raises CheckpointError naming what is missing or damaged.
    """
    found = {path: match for path in sorted(folder.glob("shard-*")) if (match := _NAME.fullmatch(path.name))}
    numbers = {int(match[2]) for match in found.values()}
    if len(numbers) != 1:
        raise CheckpointError(
            f"{folder}: shards of {sorted(numbers) or 'nothing'}; make them with: twofold encode MODEL FILE --shard I --num-shards N"
        )
    of = numbers.pop()
    if missing := [n for n in range(of) if shard_folder(folder, n, of) not in found]:
        raise CheckpointError(f"{folder}: of {of} shards, {missing[:20]} {'is' if len(missing) == 1 else 'are'} missing; make them first")
    facts = {path: _facts(path) for path in found}
    for key in ("fingerprint", "size", "overlap", "origin"):
        if len({each[key] for each in facts.values()}) > 1:
            raise CheckpointError(f"{folder}: its shards differ in {key}; make them all in the same way")
    return facts


def _cut(origin: Origin, reader: Reader, how: Cut, shard: int, of: int, names: list[str], report: Report) -> Iterator[list[Passage]]:
    """The passages of every document of a shard."""
    for item in origin.items():
        name = item.id if isinstance(item, Item) else item
        if int(lot(name), 16) % of != shard:
            continue
        names.append(name)
        if not isinstance(item, Item):
            continue
        template = Passage("", item.id, "", "", item.source, item.metadata, origin.name, digest_of(item, how))
        try:
            found = passages(item.load(), reader.spans, how, template)
        except Refused as error:
            report.skipped.add(error, name)
            continue
        if found:
            yield found


def _batches(shard: Path, width: int) -> Iterator[Batch]:
    """What a shard holds, in whole documents."""
    vector_ND: NDArray[np.float32] = (
        np.memmap(shard / VECTORS, "<f4", "r").reshape(-1, width) if (shard / VECTORS).stat().st_size else np.zeros((0, width), np.float32)
    )
    with (shard / PASSAGES).open(encoding="utf-8") as lines:
        rows = (Passage(**json.loads(line)) for line in lines)
        at = 0
        for batch in batches(_documents(rows), BATCH):
            yield Batch(batch.documents, batch.passages, np.array(vector_ND[at : at + len(batch.passages)]))
            at += len(batch.passages)


def _documents(rows: Iterator[Passage]) -> Iterator[list[Passage]]:
    """Neighbours of one document together."""
    gathered: list[Passage] = []
    for row in rows:
        if gathered and row.document != gathered[0].document:
            yield gathered
            gathered = []
        gathered.append(row)
    if gathered:
        yield gathered


def _changed(batch: Batch, known: dict[str, str], report: Report) -> Batch | None:
    """What of a batch is not in the index as it is; None if that is nothing."""
    digests = {passage.document: passage.digest for passage in batch.passages}
    fresh = [name for name in batch.documents if known.get(name) != digests[name]]
    report.unchanged += len(batch.documents) - len(fresh)
    kept = [n for n, passage in enumerate(batch.passages) if passage.document in set(fresh)]
    assert batch.vector_ND is not None
    return Batch(fresh, [batch.passages[n] for n in kept], batch.vector_ND[kept]) if fresh else None


def _nothing(texts: Any) -> NDArray[np.float32]:
    raise AssertionError(f"{len(texts)} texts of a shard have no vector")


def _facts(shard: Path) -> dict[str, Any]:
    """A shard's facts, after every file was compared with its manifest."""
    verify(shard)
    found: dict[str, Any] = json.loads((shard / FACTS).read_text(encoding="utf-8"))
    return found
