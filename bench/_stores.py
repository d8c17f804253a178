"""The parts of `bench/growth.py` that are about stores, each for a process of its own: filled, asked, and one index after another."""

from __future__ import annotations

import argparse
import ctypes
import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from bench import _vectors
from bench.memory import resident
from twofold.search.stores import lancedb
from twofold.search.stores.exact import ExactStore
from twofold.search.stores.lancedb import LanceStore

TEXTS, VECTORS, QUERIES = "texts.jsonl", "vectors.npy", "queries.npy"
TUNED_PROBES, TUNED_REFINES = (32, 64, 128), (4, 8)
Row = dict[str, Any]


def filled(size: int, chosen: argparse.Namespace, folder: Path) -> Row:
    """So many vectors in LanceDB, as `twofold index` leaves them."""
    shutil.rmtree(place := folder / f"lancedb-{size}", ignore_errors=True)
    vector_MD = np.load(folder / VECTORS, mmap_mode="r")
    row: Row = _vectors.fill(lancedb_store(place, chosen), vector_MD, texts_of(folder), size)
    np.save(folder / f"right-{size}.npy", _vectors.right(vector_MD, size, np.load(folder / QUERIES)))
    return {**row, "disk, MB": _vectors.megabytes(place)}


def searched(size: int, chosen: argparse.Namespace, folder: Path) -> Row:
    """What a query takes there, in a process that opens what another one has filled; by its settings, and by looking at all."""
    query_QD, right_QK = np.load(folder / QUERIES), np.load(folder / f"right-{size}.npy")
    before = resident()
    store = lancedb_store(folder / f"lancedb-{size}", chosen)
    row: Row = {**_vectors.asked(_vectors.from_store(store), query_QD, right_QK), "resident, MB": resident() - before}
    row |= {"vectors": store.facts()["vectors"]}
    if row["vectors"] != "exact":
        some = slice(fewer(len(query_QD), size))
        row["looking at all"] = _vectors.asked(_vectors.looking_at_all(store.folder), query_QD[some], right_QK[some])
    return row


def exact(size: int, chosen: argparse.Namespace, folder: Path) -> Row:  # noqa: ARG001
    """The same in the exact store, in memory only."""
    before, store = resident(), ExactStore(None, np.load(folder / VECTORS, mmap_mode="r").shape[1])
    vector_MD = np.concatenate([*_vectors.blocks(np.load(folder / VECTORS, mmap_mode="r"), size)])
    store.upsert(_vectors.passages(texts_of(folder), 0, size), vector_MD, new=True)
    del vector_MD
    give_back()
    query_QD, right_QK = np.load(folder / QUERIES), np.load(folder / f"right-{size}.npy")
    some = slice(fewer(len(query_QD), size))
    return {**_vectors.asked(_vectors.from_store(store), query_QD[some], right_QK[some]), "resident, MB": resident() - before}


def give_back() -> None:
    """Freed memory, which is kept for speed, does not count as the store's: the system gets it back, where it is Linux with glibc."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def fewer(queries: int, size: int) -> int:
    """Queries that look at all of so many vectors."""
    return max(5, queries // max(1, size // 50_000))


def tuned(size: int, chosen: argparse.Namespace, folder: Path) -> Row:
    """Settings of a search → what it then takes and finds, in the index that the store has made."""
    store = lancedb_store(folder / f"lancedb-{size}", chosen)
    query_QD, right_QK = np.load(folder / QUERIES)[::2], np.load(folder / f"right-{size}.npy")[::2]
    rows: Row = {}
    for store.probes in TUNED_PROBES:
        for store.refine in TUNED_REFINES:
            title = f"LanceDB, {size}, {store.probes} probes, {store.refine} k refined"
            rows[title] = _vectors.asked(_vectors.from_store(store), query_QD, right_QK)
    return rows


def swept(size: int, chosen: argparse.Namespace, folder: Path) -> Row:  # noqa: ARG001
    """One index after another on the same table."""
    right_QK = np.load(folder / f"right-{size}.npy")
    return _vectors.sweep(folder / f"lancedb-{size}", np.load(folder / QUERIES), right_QK)


def lancedb_store(place: Path, chosen: argparse.Namespace) -> LanceStore:
    """The default store with its own settings; with an index also for tiny sizes, where those are asked for."""
    width = int(np.load(place.parent / VECTORS, mmap_mode="r").shape[1])
    return lancedb.build(place, width, **({"approximate_above": 300} if chosen.quick else {}))


def texts_of(folder: Path) -> list[str]:
    """The sentences."""
    with (folder / TEXTS).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
