"""Many vectors in a store: how they come about, what is right, and what a query takes.

The vectors are those of real sentences (`bench/growth.py`). Where more are wanted, every one comes again with noise: x + NOISE · d, where
d is the direction from one real vector to another, both drawn at random. So noise has the directions by which real texts differ (noise
that is alike in all directions would give the vectors more dimensions than those of texts have). NOISE puts a repetition as far from its
original as the nearest other text is, at a cosine of .82 (the median over sentences of MedQuAD is .81): one more neighbour, not a copy
that is found without looking. Queries are real ones, which are not in the store. Shapes: M vectors, Q queries, D features, k results.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
from lancedb.index import IvfFlat, IvfRq
from numpy.typing import NDArray

from twofold.ranking import exact_top_k
from twofold.search.indexing import doubled
from twofold.search.stores import Passage, Store
from twofold.search.stores.lancedb import TABLE, TEXT

NOISE = 0.7
BLOCK = 8_192
"""Vectors that are put in together; they are put in order when `twofold index` does it."""
KS = (10, 100)
INDEXES: dict[str, tuple[Any, dict[str, Any]]] = {
    "IVF flat, √M parts": (IvfFlat, {"num_partitions": 316}),
    "IVF flat, Lance's parts": (IvfFlat, {}),
    "IVF, 1-bit codes, √M parts": (IvfRq, {"num_partitions": 316}),
    "IVF, 1-bit codes, Lance's parts": (IvfRq, {}),
}
PROBES, REFINES = (16, 32, 64), (2, 4)
Vectors = NDArray[np.float32]
Ask = Callable[[Vectors, int], Sequence[int]]
"""(D,), k → the places of what was found, best first."""


def blocks(vector_MD: Vectors, count: int, size: int = BLOCK) -> Iterator[Vectors]:
    """`count` unit vectors, `size` at a time, always the same: these, then these with noise, again and again."""
    for start in range(0, count, size):
        place = np.arange(start, min(start + size, count))
        block = np.array(vector_MD[place % len(vector_MD)], dtype=np.float32)
        again = place >= len(vector_MD)
        if again.any():
            draw = np.random.default_rng(start)
            one, other = (np.asarray(vector_MD[draw.integers(len(vector_MD), size=again.sum())]) for _ in range(2))
            block[again] += NOISE * unit(one - other)
        yield unit(block)


def unit(vector_MD: Vectors) -> Vectors:
    """Of length 1; what has no length stays as it is."""
    return (vector_MD / np.maximum(np.linalg.norm(vector_MD, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def passages(texts: Sequence[str], start: int, count: int) -> list[Passage]:
    """Passages of a document each, whose ids are their places."""
    found = []
    for i in range(start, start + count):
        found.append(Passage(f"{i}#0", str(i), "", texts[i % len(texts)], f"texts.jsonl:{i + 1}", {}, "texts.jsonl", f"{i:032x}"))
    return found


def fill(store: Store, vector_MD: Vectors, texts: Sequence[str], count: int) -> dict[str, float]:
    """Puts `count` vectors in, as `twofold index` does. CPU seconds of writing and of putting in order, and of both on the clock."""
    write = order = 0.0
    start, begun = 0, time.perf_counter()
    for block in blocks(vector_MD, count):
        rows, first = passages(texts, start, len(block)), time.process_time()
        store.upsert(rows, block, new=True)
        second = time.process_time()
        start += len(block)
        if start == count or doubled(start - len(block), start):
            store.optimize()
        write, order = write + second - first, order + time.process_time() - second
    return {"write, CPU s": write, "put in order, CPU s": order, "build, s on the clock": time.perf_counter() - begun}


def right(vector_MD: Vectors, count: int, query_QD: Vectors) -> NDArray[np.int64]:
    """(Q, 100) places of the nearest, by looking at all."""
    return exact_top_k(query_QD, blocks(vector_MD, count), max(KS))[0]


def from_store(store: Store) -> Ask:
    """A store's search as `Ask`."""
    return lambda query_D, k: [int(match.passage.document) for match in store.search(query_D, k)]


def from_table(table: Any, setting: Callable[[Any], Any]) -> Ask:
    """A search of a table of LanceDB as the store does it, with other settings."""

    def ask(query_D: Vectors, k: int) -> list[int]:
        found = table.search(query_D, query_type="vector", vector_column_name="vector").distance_type("cosine").select([*TEXT, "_distance"])
        return [int(row["document"]) for row in setting(found.limit(k)).to_list()]

    return ask


def looking_at_all(folder: Path) -> Ask:
    """A search of a store's table that passes its index over."""
    return from_table(table_of(folder), lambda found: found.bypass_vector_index())


def table_of(folder: Path) -> Any:
    """A store's table."""
    return lancedb.connect(folder).open_table(TABLE)


def sweep(folder: Path, query_QD: Vectors, right_QK: NDArray[np.int64]) -> dict[str, dict[str, float]]:
    """Index and settings → the row of a table. The table is no store any more after this: its files are not the sealed ones."""
    table, rows = table_of(folder), dict[str, dict[str, float]]()
    for name, (kind, options) in INDEXES.items():
        begun = time.process_time()
        table.create_index("vector", config=kind(distance_type="cosine", **options))
        built = {"build, CPU s": time.process_time() - begun}
        built |= {"disk, MB": sum(index.size_bytes for index in table.list_indices() if index.name == "vector_idx") / 1e6}
        for probes in PROBES:
            for refine in (0,) if kind is IvfFlat else REFINES:
                title = f"{name}, {probes} probes" + (f", {refine} k refined" if refine else "")
                ask = from_table(table, partial(looked_into, probes=probes, refine=refine))
                rows[title] = {**built, **asked(ask, query_QD, right_QK)}
    return rows


def looked_into(found: Any, probes: int, refine: int) -> Any:
    """A search with these settings of its index; 0: nothing is refined."""
    return found.nprobes(probes).refine_factor(refine) if refine else found.nprobes(probes)


def asked(ask: Ask, query_QD: Vectors, right_QK: NDArray[np.int64]) -> dict[str, float]:
    """Recall against `right_QK`, and milliseconds of a query, after some that fill caches."""
    row: dict[str, float] = {}
    for k in KS:
        cpu, wall, found = [], [], 0
        for query_D in query_QD[: len(query_QD) // 4]:
            ask(query_D, k)
        for query_D, best in zip(query_QD, right_QK[:, :k], strict=True):
            clock, begun = time.perf_counter(), time.process_time()
            places = ask(query_D, k)
            cpu.append(1_000 * (time.process_time() - begun))
            wall.append(1_000 * (time.perf_counter() - clock))
            found += len(set(places) & set(best.tolist()))
        row[f"recall@{k}"] = found / right_QK[:, :k].size
        row |= {f"CPU ms, k = {k}, p50": statistics.median(cpu), f"CPU ms, k = {k}, p95": float(np.quantile(cpu, 0.95))}
        row[f"ms on the clock, k = {k}, p50"] = statistics.median(wall)
    return row


def megabytes(folder: Path) -> float:
    """Of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
