"""A real collection indexed by a real model, killed with SIGKILL on the way, then searched.

A process does what `twofold index` does and notes every document as it is acknowledged; it is killed at random moments, and started again.
After each kill the index is opened: every acknowledged document must be there. At the end nothing may be left to do. Then the collection's
own test queries are asked in every way (a document counts by its best passage), which says what the first stage and the reranker are worth.
Times are CPU seconds; what was encoded twice because of the kills is part of them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench._report import peak_resident, report
from twofold.backbone.memory import keep_freed_memory
from twofold.data.sources import open_dataset
from twofold.evaluate.measures import mean, per_query
from twofold.search.index import Index, load_reader, open_or_make, read_settings, writing
from twofold.search.indexing import bring_up_to_date
from twofold.search.pipeline import Mode, Pipeline
from twofold.search.sources import open_origin

ROOT = Path(__file__).resolve().parents[1]
WAYS: tuple[tuple[str, Mode, bool], ...] = (
    ("dense", "dense", False),
    ("lexical", "lexical", False),
    ("hybrid", "hybrid", False),
    ("dense, reranked", "dense", True),
    ("lexical, reranked", "lexical", True),
    ("hybrid, reranked", "hybrid", True),
)


def index_once(place: Path, log: Path, documents: str, model: str, precision: str | None) -> None:
    """What `twofold index` does, noting what was acknowledged. The last line is the report."""
    keep_freed_memory()
    with writing(place), log.open("a", encoding="utf-8") as file:

        def note(names: Sequence[str]) -> None:
            file.write(json.dumps({"documents": list(names), "cpu": time.process_time()}) + "\n")
            file.flush()

        index, reader = open_or_make(place, model, precision=precision)
        with index:
            done = bring_up_to_date(index, open_origin(documents), reader.spans, reader.callables.encode_document, acknowledged=note)
        file.write(json.dumps({"report": done.as_dict(), "cpu": time.process_time(), "peak_megabytes": round(peak_resident())}) + "\n")


def acknowledged(log: Path) -> tuple[set[str], list[dict[str, Any]]]:
    """Documents, and the reports of those runs that came to an end."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    return {name for line in lines for name in line.get("documents", ())}, [line for line in lines if "report" in line]


def interrupted(place: Path, log: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Indexes with kills, at about even shares of the documents."""
    total, draw = sum(isinstance(item, object) for item in open_origin(chosen.documents).items()), random.Random(0)
    targets = [int(total * (n + draw.uniform(0.2, 0.8)) / (chosen.kills + 1)) for n in range(chosen.kills)]
    kills, cpu = [], 0.0
    log.touch()
    for target in [*targets, None]:
        before, begun = len(acknowledged(log)[0]), time.perf_counter()
        run = subprocess.Popen([sys.executable, "-m", "bench.index_documents", "--child", str(place), str(log), *passed(chosen)], cwd=ROOT)
        while run.poll() is None and (target is None or len(acknowledged(log)[0]) < target):
            time.sleep(0.2)
        time.sleep(0 if target is None else draw.uniform(0, 3))
        run.send_signal(signal.SIGKILL) if run.poll() is None else None
        run.wait()
        if target is None and run.returncode:
            raise SystemExit(f"the last run ended with {run.returncode}")
        names, _ = acknowledged(log)
        with Index.open(place) as index:
            there, passages = index.store.documents(), index.store.count()
        lost = sorted(names - there.keys())
        seconds = round(time.perf_counter() - begun, 1)
        row = {
            "acknowledged": len(names),
            "new": len(names) - before,
            "found": len(there),
            "passages": passages,
            "lost": len(lost),
            "wall_s": seconds,
        }
        kills.append(row)
        print(row, file=sys.stderr, flush=True)
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    last = 0.0
    for line in lines:  # CPU seconds of each process up to its last acknowledgement
        cpu += line["cpu"] - last if line["cpu"] >= last else line["cpu"]
        last = line["cpu"]
    return {"documents": total, "rounds": kills, "lost": sum(row["lost"] for row in kills), "cpu_s": round(cpu, 1)}


def passed(chosen: argparse.Namespace) -> list[str]:
    return [chosen.documents, chosen.model, chosen.precision or ""]


def asked(place: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """The test queries, in every way: measures, and CPU milliseconds of a search."""
    dataset = open_dataset(chosen.documents)
    texts = dict(sorted(dataset.queries("test").items())[: chosen.queries])
    qrels = {query: dataset.qrels("test")[query] for query in texts}
    rows: dict[str, Any] = {}
    with Index.open(place) as index:
        pipeline = index.pipeline(load_reader(index.settings, chosen.model, chosen.precision))
        for name, mode, rerank in WAYS:
            times: list[float] = []
            run = {query: by_document(pipeline, text, mode, rerank, chosen.depth, times) for query, text in texts.items()}
            found = per_query(run, qrels, ("nDCG@10", "R@20", "R@100", "RR"))
            rows[name] = {key: round(mean(each), 4) for key, each in found.items()}
            rows[name]["cpu_ms_median"] = round(1000 * statistics.median(times), 1)
            print(name, rows[name], file=sys.stderr, flush=True)
        return {
            "queries": len(texts),
            "depth": chosen.depth,
            "rerank_weight": pipeline.callables.rerank_weight,
            "rows": rows,
            "store": index.store.facts(),
        }


def by_document(pipeline: Pipeline, query: str, mode: Mode, rerank: bool, depth: int, times: list[float]) -> dict[str, float]:
    """Document → minus the rank of its best passage."""
    begun = time.process_time()
    found = pipeline.search(query, 100, depth, mode, rerank=rerank)
    times.append(time.process_time() - begun)
    scores: dict[str, float] = {}
    for hit in found.hits:
        scores.setdefault(hit.document, -float(hit.rank))
    return scores


def size_of(folder: Path) -> float:
    """Megabytes on disk."""
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 1)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["--child"]:
        _, place, log, documents, model, precision = arguments
        index_once(Path(place), Path(log), documents, model, precision or None)
        return {}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, help="also write the result here: results/bench/index_medquad.json")
    parser.add_argument("--documents", default="medquad", help="a dataset with test queries (default %(default)s)")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--precision", help="fp32, bf16 or bf16-weights, if not the model's own")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--depth", type=int, default=20, help="candidates that are reranked (default %(default)s)")
    parser.add_argument("--place", type=Path, help="keep the index here, and use what is there")
    chosen = parser.parse_args(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with tempfile.TemporaryDirectory(prefix="index-") as temporary:
        folder = chosen.place or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        made = interrupted(folder / "index", folder / "log", chosen)
        begun = time.process_time()
        index_once(folder / "index", folder / "again", chosen.documents, chosen.model, chosen.precision)
        again = acknowledged(folder / "again")[1][-1]["report"]
        counts = {key: again[key] for key in ("added", "changed", "unchanged", "deleted")}
        made |= {"again": {**counts, "cpu_s": round(time.process_time() - begun, 1)}}
        made |= {"megabytes": size_of(folder / "index"), "peak_megabytes": acknowledged(folder / "log")[1][-1]["peak_megabytes"]}
        searched = asked(folder / "index", chosen)
        made_with = read_settings(folder / "index")
    settings = {"documents": Path(chosen.documents).name, "model": Path(chosen.model).name, **made_with.identity, "kills": chosen.kills}
    settings |= {"passage_tokens": made_with.size, "overlap": made_with.overlap}
    name = f"index_{Path(chosen.documents).name}"
    content = report(name, __doc__, [], chosen.to, indexing=made, searching=searched, settings=settings)
    print(json.dumps(content, indent=2, ensure_ascii=False))
    return content


if __name__ == "__main__":
    main()
