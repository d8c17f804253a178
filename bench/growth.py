"""What growth costs: texts through the model and into an index, vectors in a store, each ten times as many as before (S12).

Sentences of a dataset, at most 40 words each and all different while there are enough, go through `UnifiedModel.encode` (100 to
100,000) and through what `twofold index` does (100 to 10,000), every size in a process of its own that reads its texts, loads the model
and encodes a few; only then it is looked at. "beside" is the peak of memory above that, the vectors that come back left out: what a batch
needs. Stores are filled with the vectors that the default backbone gives the most texts; how they become a million stands in
bench/_vectors.py. Exponents are of the growth: 1 is linear, 0 is none. ANN settings: one index after another on 100,000 vectors, from
which the defaults of search/stores/lancedb.py are chosen.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import _measure, _stores, _vectors
from bench._measure import ROOT
from bench._report import peak_resident
from bench._stores import QUERIES, TEXTS, VECTORS, Row
from bench.memory import resident
from twofold.cache import write_text
from twofold.model.system import System
from twofold.model.unified import UnifiedModel
from twofold.search.index import Index, Settings
from twofold.search.indexing import bring_up_to_date
from twofold.search.passages import Cut
from twofold.search.reader import Reader
from twofold.search.sources import Origin

TOKENS = 64
"""The longest text: a sentence."""
CLOCK = "CPU seconds of all threads of a process of its own (LanceDB has one for its work beside the caller's)"
STORES = {"search": "LanceDB", "exact": "exact store"}


@dataclass(frozen=True)
class Sizes:
    """How many of what."""

    encoded: tuple[int, ...] = (100, 1_000, 10_000, 100_000)
    indexed: tuple[int, ...] = (100, 1_000, 10_000)
    searched: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    queries: int = 200

    @classmethod
    def of(cls, quick: bool) -> Sizes:
        """Tiny ones to see that it runs."""
        return cls((4, 12, 40), (4, 12), (40, 80, 400), 5) if quick else cls()


def encoded(size: int, chosen: argparse.Namespace, folder: Path) -> Row:
    """One size through `encode`."""
    texts, model = begun(size, chosen.backbone, folder)
    found: list[Any] = []
    row = watched(lambda: found.append(model.encode(texts)), size, chosen.rounds, found.clear)
    row["beside, MB"] = row.pop("peak above the start, MB") - found[-1].nbytes / 1e6
    sizes = {"texts, MB": sum(map(sys.getsizeof, texts)) / 1e6, "vectors, MB": found[-1].nbytes / 1e6}
    return told(row, texts, model) | sizes


def vectors(size: int, chosen: argparse.Namespace, folder: Path) -> Row:
    """The vectors that stores are filled with."""
    texts, model = begun(size, of_vectors(chosen), folder)
    start = time.process_time()
    np.save(folder / VECTORS, model.encode(texts))
    row = {"CPU s": time.process_time() - start}
    np.save(folder / QUERIES, model.encode_queries(_measure.queries(chosen.texts, Sizes.of(chosen.quick).queries)))
    return row


def indexed(size: int, chosen: argparse.Namespace, folder: Path) -> Row:
    """One size into a new index: cut, encoded, written, acknowledged, put in order."""
    texts, model = begun(size, chosen.backbone, folder)
    reader = Reader.of(System.of(model))
    with tempfile.TemporaryDirectory(dir=folder) as place:
        corpus = Path(place, "documents.jsonl")
        corpus.write_text("".join(json.dumps({"_id": f"t{i}", "text": text}) + "\n" for i, text in enumerate(texts)), encoding="utf-8")
        with Index.make(Path(place, "index"), Settings.of("bench", reader, Cut.of(reader.room))) as index:
            once = partial(bring_up_to_date, index, Origin(corpus), reader.spans, reader.callables.encode_document)
            row = watched(once, size, 1, lambda: None)
    row["beside, MB"] = row.pop("peak above the start, MB")
    return told(row, texts, model)


def of_vectors(chosen: argparse.Namespace) -> str:
    """The backbone of the vectors in stores: the default one, whose neighbours are those that a search is for."""
    return str(chosen.backbone) if chosen.quick else _measure.BACKBONE


def begun(size: int, backbone: str, folder: Path) -> tuple[list[str], UnifiedModel]:
    """Texts and a model that has worked a little, in a process that has done nothing else."""
    with (folder / TEXTS).open(encoding="utf-8") as file:
        texts = [json.loads(line) for line, _ in zip(file, range(size), strict=False)]
    model = _measure.model(backbone, precision="bf16" if _measure.has_bf16() else "fp32", length=TOKENS)
    model.encode(texts[:64])
    return texts, model


def watched(call: Callable[[], object], size: int, rounds: int, between: Callable[[], object]) -> Row:
    """CPU seconds of a call, more often if it is short, and the peak of memory above what there was."""
    seconds: list[float] = []
    forget_peak()
    before = resident()
    for _ in range(max(1, min(rounds, 10_000 // size))):
        between()
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return {"seconds": seconds, "peak above the start, MB": peak_resident() - before}


def told(row: Row, texts: Sequence[str], model: UnifiedModel) -> Row:
    """A row with its tokens counted, a few texts at a time."""
    tokens = sum(model.tokens.texts(texts[start : start + 1_000]).tokens for start in range(0, len(texts), 1_000))
    each = [1_000 * value / tokens for value in row["seconds"]]
    return {"tokens": tokens, "CPU ms a token": statistics.median(each), **row, "seconds": row["seconds"]}


def forget_peak() -> None:
    """Lets the peak of this process's memory begin anew; where that cannot be done, it counts from the process's start."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


KINDS: dict[str, Callable[[int, argparse.Namespace, Path], Row]] = {
    "encode": encoded,
    "vectors": vectors,
    "index": indexed,
    "fill": _stores.filled,
    "search": _stores.searched,
    "exact": _stores.exact,
    "tune": _stores.tuned,
    "sweep": _stores.swept,
}


def child(kind: str, size: int, chosen: argparse.Namespace, folder: Path) -> Row:
    """One part, in this process."""
    return KINDS[kind](size, chosen, folder)


def apart(kind: str, size: int, chosen: argparse.Namespace, folder: Path) -> Row:
    """What a process of its own says."""
    command = [sys.executable, "-m", "bench.growth", "--child", kind, str(size), str(folder), "--rounds", str(chosen.rounds)]
    paths = os.pathsep.join(path for path in (str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")) if path)
    one = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "LANCE_CPU_THREADS": "1"}
    given = ["--backbone", chosen.backbone, "--texts", chosen.texts, *(["--quick"] if chosen.quick else [])]
    done = subprocess.run([*command, *given], stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **one}, check=False)
    if done.returncode:
        raise SystemExit(f"{kind} of {size:,} ended with {done.returncode}")
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def parts(chosen: argparse.Namespace, folder: Path) -> dict[str, dict[int, Row]]:
    """Kind → size → row; what `folder` has already is not measured again."""
    sizes = Sizes.of(chosen.quick)
    rows: dict[str, dict[int, Row]] = {}
    jobs = [("encode", size) for size in sizes.encoded] + [("index", size) for size in sizes.indexed]
    jobs += (
        [("vectors", sizes.encoded[-1])]
        + [(kind, size) for size in sizes.searched for kind in ("fill", "search", "exact")]
        + [("tune", sizes.searched[-1]), ("sweep", sizes.searched[1])]
    )
    if not (folder / TEXTS).is_file():
        texts = _measure.sentences(chosen.texts, sizes.encoded[-1])
        write_text(folder / TEXTS, "".join(json.dumps(text) + "\n" for text in texts))
    for kind, size in jobs:
        kept = folder / f"{kind}-{size}.json"
        if not kept.is_file():
            write_text(kept, json.dumps(apart(kind, size, chosen, folder)))
            print(kind, f"{size:,}", kept.read_text(encoding="utf-8"), file=sys.stderr, flush=True)
        rows.setdefault(kind, {})[size] = json.loads(kept.read_text(encoding="utf-8"))
    return rows


def exponent(small: float, large: float, times: float) -> float:
    """The power of the size by which something grows: 1 is in proportion, 0 not at all."""
    return round(math.log(max(large, 1e-9) / max(small, 1e-9)) / math.log(times), 3)


def growth(values: Mapping[int, float], sizes: Sequence[int] = ()) -> float:
    """The exponent from the smallest size, or that of `sizes`, to the largest."""
    small, large = sizes or (min(values), max(values))
    return exponent(values[small], values[large], large / small)


def compared(large: Sequence[float], small: Sequence[float]) -> dict[str, float]:
    """The ratio of two medians, and of the extremes."""
    value, low, high = statistics.median(large) / statistics.median(small), min(large) / max(small), max(large) / min(small)
    return {"value": round(value, 4), "low": round(low, 4), "high": round(high, 4)}


def column(rows: Mapping[int, Row], name: str) -> dict[int, float]:
    """Size → one figure."""
    return {size: row[name] for size, row in rows.items()}


def content(rows: dict[str, dict[int, Row]], chosen: argparse.Namespace) -> Row:
    """The result, of all parts."""
    sizes = Sizes.of(chosen.quick)
    ratios: Row = {}
    for kind in ("encode", "index"):
        each = {size: [value / row["tokens"] for value in row["seconds"]] for size, row in rows[kind].items()}
        few, many = min(each), max(each)
        ratios[f"{kind}: CPU time of a token, {many:,} texts / {few:,}"] = compared(each[many], each[few])
    beside = column(rows["encode"], "beside, MB")
    small, large = sizes.encoded[1], sizes.encoded[-1]
    ratios[f"encode: memory beside texts and vectors, {large:,} texts / {small:,}"] = compared([beside[large]], [beside[small]])
    few, _, many = sizes.searched
    for kind in ("search", "exact"):
        for k in _vectors.KS:
            p50 = column(rows[kind], f"CPU ms, k = {k}, p50")
            ratios[f"{STORES[kind]}: CPU time of a query, k = {k}, {many:,} vectors / {few:,}"] = compared([p50[many]], [p50[few]])
    seconds = {kind: {size: statistics.median(row["seconds"]) for size, row in rows[kind].items()} for kind in ("encode", "index")}
    board = {
        "indexing": max(map(growth, seconds.values())),
        "search": max(growth(column(rows["search"], f"CPU ms, k = {k}, p50")) for k in _vectors.KS),
        "memory": growth(beside, (small, large)),
    }
    made = {"backbone": of_vectors(chosen), "noise": _vectors.NOISE, **rows["vectors"][large]}
    details = {
        **tables(rows),
        "ann_settings": rows["sweep"][sizes.searched[1]] | rows["tune"][sizes.searched[-1]],
        "vectors": made,
        "exponents": board,
    }
    return _measure.result("growth", __doc__ or "", ratios, [("S12", board)], chosen, CLOCK, **details)


def tables(rows: Mapping[str, Mapping[int, Row]]) -> dict[str, Row]:
    """What a page shows of texts and of vectors, a row for every size."""
    texts = {f"{kind}, {size}": without(row, "seconds") for kind in ("encode", "index") for size, row in rows[kind].items()}
    vectors: Row = {}
    for size, row in rows["search"].items():
        vectors[f"{STORES['search']}, {size}"] = {**rows["fill"][size], **without(row, "looking at all")}
        if "looking at all" in row:
            vectors[f"{STORES['search']}, all looked at, {size}"] = row["looking at all"]
    vectors |= {f"{STORES['exact']}, {size}": row for size, row in rows["exact"].items()}
    return {"growth_of_texts": texts, "growth_of_vectors": vectors}


def without(row: Row, name: str) -> Row:
    """A row's other figures."""
    return {key: value for key, value in row.items() if key != name}


def main(arguments: Sequence[str] | None = None) -> Row:
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["--child"]:
        _, kind, size, folder, *rest = arguments
        with _measure.one_thread():
            print(json.dumps(child(kind, int(size), _measure.options(__doc__ or "", rest, rounds=5), Path(folder))))
        return {}
    place, arguments = _place(arguments)
    chosen = _measure.options(__doc__ or "", arguments, rounds=5)
    with _measure.one_thread(), tempfile.TemporaryDirectory(prefix="growth-") as temporary:
        folder = place or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = content(parts(chosen, folder), chosen)
    _measure.show(found, chosen.to)
    return found


def _place(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """`--place`, and the other options."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--place", type=Path, help="keep texts, vectors and what was measured here, and go on where a run was stopped")
    chosen, rest = parser.parse_known_args(arguments)
    return chosen.place, rest


if __name__ == "__main__":
    main()
