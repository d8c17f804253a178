"""Files read for one question, without an index: cut as an index would cut them, and put in order by the pair score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from twofold.errors import DataError
from twofold.search.passages import Cut, passages
from twofold.search.pipeline import Hit
from twofold.search.reader import Reader
from twofold.search.sources import open_origin
from twofold.search.stores import Passage


def file_hits(paths: Sequence[str | Path], question: str, reader: Reader) -> list[Hit]:
    """All passages of some files, the best first. Raises DataError for a file that cannot be read, and where there is no text."""
    found = list(_passages(paths, reader))
    if not found:
        raise DataError(f"{', '.join(map(str, paths))}: no text")
    score_N = reader.callables.score([(question, passage.body) for passage in found])
    order = np.argsort(-score_N, kind="stable").tolist()
    return [_hit(rank, found[i], float(score_N[i])) for rank, i in enumerate(order, start=1)]


def _passages(paths: Sequence[str | Path], reader: Reader) -> Iterator[Passage]:
    how = Cut.of(reader.room)
    for path in paths:
        origin = open_origin(path)
        for item in origin.items():
            if isinstance(item, str):
                raise DataError(origin.skipped.lines[-1])
            template = Passage("", item.id, "", "", item.source, item.metadata, origin.name, item.digest)
            yield from passages(item.load(), reader.spans, how, template)


def _hit(rank: int, passage: Passage, score: float) -> Hit:
    return Hit(
        rank=rank,
        score=score,
        id=passage.id,
        document=passage.document,
        title=passage.title,
        text=passage.text,
        source=passage.source,
        metadata=passage.metadata,
        first_rank=rank,
        first_score=score,
        rerank_score=score,
    )
