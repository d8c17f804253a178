"""The whole way on one CPU: retrieve, rerank, answer. One model over two separate models, and over E2Rank's idea.

"ours" is one model with its experts and routers: it embeds, scores pairs and reads answers. "two models" are sentence-transformers'
SentenceTransformer and a CrossEncoder on the same backbone; no weights of a cross-encoder come as a package, so its head is random: its
time, memory and disk are real, and its quality is the bi-encoder's order alone, unless a reranker that the method specialists trained
is named (--reranker). It has no third model for answers. "e2rank" embeds a query with its first six candidates (64 tokens of each) in
one pass and compares that with vectors of the index (arXiv 2510.22733); the prompt is not trained on this backbone, so its quality is
that of the idea untrained, and "e2rank, trained" is a model of that method where one is named (--e2rank). "ours, bf16" is mixed
precision where the processor has it. An answer expert that the model does not have is added fresh: it costs what a trained one costs,
and no F1 is given for it.

Documents of pydocs (code) and its test queries (the sentence that says what it does), a sample of both: so nDCG@10 is that of an
easy, small corpus and only compares the sides. The first stage is exact search by vectors, the reranker reads its best, the reader
five passages.
Sides take turns with every query; the time of a query is CPU time of one thread, wall time stands beside it. Memory is of a process of
its own: "peak" is the most that was resident, "growth" that without what the libraries took before loading.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bench import _measure, _systems
from bench._measure import ROOT
from bench._report import peak_resident
from bench._systems import Side
from bench.memory import resident, weights
from twofold.data.sources import Dataset, open_dataset
from twofold.evaluate.answers import given_passages, measured, questions
from twofold.evaluate.measures import mean, per_query
from twofold.evaluate.retrieval import judged
from twofold.records import Document, Qrels
from twofold.search.answers import answer
from twofold.search.pipeline import Hit, Pipeline
from twofold.search.stores import Passage
from twofold.search.stores.exact import ExactStore

STAGES = ("encode", "retrieve", "rerank", "answer", "all")
MEASURE = "nDCG@10"
QUESTIONS, PASSAGES = 60, 300
"""For F1: questions that are answered, and the passages among which their answers are."""


def lot(text: str) -> str:
    """What a sample is chosen by: the same everywhere."""
    return hashlib.sha256(text.encode()).hexdigest()


class Sample(NamedTuple):
    """A small corpus with questions that it answers."""

    documents: list[Document]
    queries: dict[str, str]
    qrels: Qrels


def sample(dataset: Dataset, queries: Iterable[str], documents: int) -> Sample:
    """These queries of the test split with what is judged for them, and others up to so many documents."""
    all_of = judged(dataset, "test")
    chosen = {query: all_of.queries[query] for query in queries}
    wanted = {document for query in chosen for document, grade in all_of.qrels[query].items() if grade > 0}
    others = sorted((document.id for document in dataset.corpus if document.id not in wanted), key=lot)
    ids = sorted([*wanted, *others[: max(0, documents - len(wanted))]], key=lot)
    return Sample([dataset.corpus.document(id) for id in ids], chosen, {query: all_of.qrels[query] for query in chosen})


@dataclass
class Run:
    """One side at work: its pipeline, and what each stage of each query took, in CPU and in wall seconds."""

    side: Side
    pipeline: Pipeline = field(init=False)
    index: list[float] = field(default_factory=list)
    """CPU seconds of each part of the documents."""
    spent: list[dict[str, tuple[float, float]]] = field(default_factory=list)
    found: dict[str, tuple[list[Hit], list[Hit]]] = field(default_factory=dict)
    """Query → the first stage's best, the reranked best."""

    def __post_init__(self) -> None:
        calls = self.side.callables
        encode, score = self._timed("encode", calls.encode_query), self._timed("rerank", calls.score)
        self.pipeline = Pipeline(ExactStore(None, self.width), replace(calls, encode_query=encode, score=score))

    @property
    def width(self) -> int:
        return int(self.side.callables.encode_query(["width"]).shape[1])

    def add(self, documents: Sequence[Document]) -> None:
        """Encodes documents and stores them."""
        passages = [Passage(document.id, document.id, document.title, document.text) for document in documents]
        begun = time.process_time()
        vector_ND = np.asarray(self.side.callables.encode_document([passage.body for passage in passages]), np.float32)
        self.pipeline.store.upsert(passages, vector_ND)
        self.index.append(time.process_time() - begun)
        self.side.vectors.update(zip((passage.body for passage in passages), vector_ND, strict=True))

    def ask(self, id: str, query: str, depth: int) -> str:
        """One query, all the way; what is answered."""
        self.spent.append({})
        with self._stage("all"):
            with self._stage("search"):
                found = self.pipeline.search(query, k=10, depth=depth, mode="dense")
            said = ""
            if self.side.reader is not None:
                with self._stage("answer"):
                    said = answer(query, found.hits, self.side.reader).text
        self.found[id] = (found.first, found.hits)
        now = self.spent[-1]
        now["retrieve"] = tuple(max(0.0, now["search"][i] - now["encode"][i] - now["rerank"][i]) for i in (0, 1))  # type: ignore[assignment]
        return said

    def search_seconds(self, queries: slice) -> float:
        """CPU seconds of retrieving and reranking these queries."""
        return sum(each["search"][0] for each in self.spent[queries])

    def milliseconds(self) -> dict[str, dict[str, float]]:
        """Stage → median and 95th percentile, in CPU time and on the clock."""
        rows = {}
        for stage in STAGES:
            if all(stage in each for each in self.spent):
                both = np.array([each[stage] for each in self.spent]) * 1000
                at = {f"{clock}, p{p}": float(np.percentile(both[:, i], p)) for i, clock in enumerate(("CPU", "wall")) for p in (50, 95)}
                rows[stage] = {name: round(value, 2) for name, value in at.items()}
        return rows

    def quality(self, qrels: Qrels) -> dict[str, float | None]:
        """nDCG@10 before and after reranking."""
        lists = ({query: both[at] for query, both in self.found.items()} for at in (0, 1))
        runs = ({query: {hit.document: -float(i) for i, hit in enumerate(hits)} for query, hits in each.items()} for each in lists)
        scores = [round(mean(per_query(run, qrels, [MEASURE])[MEASURE]), 4) for run in runs]
        return {f"{MEASURE}, first stage": scores[0], f"{MEASURE}, reranked": scores[1] if self.side.reranks else None}

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.spent[-1][name] = (time.process_time() - cpu, time.perf_counter() - wall)

    def _timed(self, name: str, call: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def timed(items: Any) -> Any:
            with self._stage(name):
                return call(items)

        return timed


def turns(names: Sequence[str], turn: int) -> list[str]:
    """The names, beginning with another one each turn."""
    shift = turn % len(names)
    return [*names[shift:], *names[:shift]]


def parts(count: int, rounds: int) -> list[slice]:
    """So many items in `rounds` parts."""
    edges = [count * i // rounds for i in range(rounds + 1)]
    return [slice(a, b) for a, b in pairwise(edges) if b > a]


def race(runs: Mapping[str, Run], data: Sample, chosen: argparse.Namespace) -> None:
    """Every side indexes and asks, taking turns; each has worked once before."""
    names = list(runs)
    for run in runs.values():
        run.add(data.documents[:4])
        run.ask("", data.documents[0].body[:200], 4)
        run.index.clear(), run.spent.clear(), run.found.clear()
    for turn, part in enumerate(parts(len(data.documents), chosen.rounds)):
        for name in turns(names, turn):
            runs[name].add(data.documents[part])
    for turn, (id, query) in enumerate(data.queries.items()):
        for name in turns(names, turn):
            runs[name].ask(id, query, chosen.depth)


def ratios_of(runs: Mapping[str, Run], data: Sample, rounds: int) -> dict[str, Any]:
    """Time of the others over ours, to index and to ask (retrieve and rerank)."""
    slices = parts(len(data.queries), rounds)
    index = _measure.Times({name: run.index for name, run in runs.items()})
    asked = _measure.Times({name: [run.search_seconds(part) for part in slices] for name, run in runs.items()})
    pairs = [("two models", "ours"), ("e2rank", "ours"), ("two models", "ours, bf16")]
    pairs = [pair for pair in pairs if pair[1] in runs]
    found = {f"time to index: {above} / {below}": index.ratio(above, below) for above, below in pairs}
    return found | {f"time of a query: {above} / {below}": asked.ratio(above, below) for above, below in pairs}


def answered(run: Run, chosen: argparse.Namespace) -> dict[str, float]:
    """F1 of the answers to a sample of questions: from the right passage, and all the way over a small corpus; one must be given."""
    dataset = open_dataset(chosen.answers)
    asked = sorted(questions(dataset, "test"), key=lambda one: lot(one.id))[: 4 if chosen.quick else QUESTIONS]
    (model,), reader = run.side.models, run.side.reader
    assert reader is not None
    data = sample(dataset, [one.id for one in asked], 20 if chosen.quick else PASSAGES)
    other = Run(replace(run.side, reader=replace(reader, threshold=float("-inf"))))
    other.add(data.documents)
    said = [other.ask(one.id, one.text, chosen.depth) for one in asked]
    wanted = [one.answers for one in asked]
    scores = {"F1, passage given": measured(given_passages(model, "answer", asked), wanted), "F1, all the way": measured(said, wanted)}
    return {name: round(values["f1"], 4) for name, values in scores.items()}


def on_two(runs: Mapping[str, Run], data: Sample, chosen: argparse.Namespace) -> dict[str, Any]:
    """Wall milliseconds of a query on two threads, where the machine is free for them; else why not."""
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if cores < 2 or load > 1.5:
        return {"not measured": f"{cores} cores, load average {load:.1f}"}
    torch.set_num_threads(2)
    try:
        rows: dict[str, Any] = {}
        for name, run in runs.items():
            kept, run.spent = run.spent, []
            for id, query in list(data.queries.items())[:10]:
                run.ask(id, query, chosen.depth)
            rows[name] = round(float(np.median([each["search"][1] for each in run.spent])) * 1000, 2)
            run.spent = kept
        return rows
    finally:
        torch.set_num_threads(1)


def forget_peak() -> None:
    """Lets the peak begin anew, where the system can: what importing took for a moment is no part of the work."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def child(name: str, chosen: argparse.Namespace, temporary: Path) -> dict[str, float]:
    """Loads, indexes, asks and looks, in this process."""
    data = data_of(chosen)
    before = resident()
    forget_peak()
    run = Run(_systems.sides(chosen, True)[name](chosen, temporary))
    run.add(data.documents[:64])
    for id, query in list(data.queries.items())[:4]:
        run.ask(id, query, chosen.depth)
    peak = max(peak_resident(), resident())
    found = {"weights": weights(*run.side.models), "growth": peak - before, "peak": peak, "disk": run.side.disk}
    return {what: round(value, 1) for what, value in found.items()}


def apart(name: str, chosen: argparse.Namespace, temporary: Path) -> dict[str, float]:
    """What a child process says."""
    given = ["--model", chosen.model, "--backbone", chosen.backbone, "--texts", chosen.texts, "--depth", str(chosen.depth)]
    for option in ("reranker", "e2rank"):
        given += [f"--{option}", getattr(chosen, option)] if getattr(chosen, option) else []
    paths = os.pathsep.join(path for path in (str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")) if path)
    command = [sys.executable, "-m", "bench.pipeline", "--child", name, str(temporary), *given, *(["--quick"] if chosen.quick else [])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def named(model: str) -> str:
    """What a result calls a model or a dataset: a trial's folder by the trial."""
    return Path(model).parent.name if Path(model).name == "model" else Path(model).name


def data_of(chosen: argparse.Namespace) -> Sample:
    """The corpus and the queries of this run."""
    dataset = open_dataset(chosen.texts)
    queries = sorted(judged(dataset, "test").queries, key=lot)[: 4 if chosen.quick else chosen.queries]
    return sample(dataset, queries, 20 if chosen.quick else chosen.documents)


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """Those of every benchmark, and this one's own."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--model", default="builtin", help="ours (default %(default)s); with an answer expert it is asked for F1 too")
    parser.add_argument("--reranker", default="", help="a reranker that the method specialists trained, for the two models' quality")
    parser.add_argument("--e2rank", default="", help="a model that the method e2rank trained")
    parser.add_argument("--answers", default="squad", help="the dataset of questions with answers (default %(default)s)")
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--depth", type=int, default=20, help="passages that are reranked (default %(default)s)")
    own, rest = parser.parse_known_args(arguments)
    chosen = _measure.options(f"{__doc__}\nOwn options:\n{parser.format_help()}", rest, rounds=3)
    return argparse.Namespace(**vars(own), **vars(chosen))


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["--child"]:
        with _measure.one_thread():
            print(json.dumps(child(arguments[1], options(arguments[3:]), Path(arguments[2]))))
        return {}
    chosen = options(arguments)
    with _measure.one_thread(), tempfile.TemporaryDirectory() as temporary:
        data = data_of(chosen)
        makes = _systems.sides(chosen, _measure.has_bf16())
        runs = {name: Run(make(chosen, Path(temporary))) for name, make in makes.items()}
        race(runs, data, chosen)
        ratios = ratios_of(runs, data, chosen.rounds)
        figures: dict[str, dict[str, Any]] = {}
        for name, run in runs.items():
            seconds = round(sum(run.index) / len(data.documents) * 1000, 2)
            figures[name] = {"CPU s to index 1,000 documents": seconds, **run.quality(data.qrels)}
        if _systems.answers(chosen):
            figures["ours"] |= answered(runs["ours"], chosen)
        two = on_two(runs, data, chosen)
        megabytes = {name: apart(name, chosen, Path(temporary)) for name in runs}
    for what in ("weights", "growth", "peak", "disk"):
        sizes = _measure.Times({name: [each[what]] for name, each in megabytes.items()})
        ratios[f"{what}: ours / two models"] = sizes.ratio("ours", "two models")
    milliseconds = {f"{name}: {stage}": row for name, run in runs.items() for stage, row in run.milliseconds().items()}
    used = {name: getattr(chosen, name) for name in ("model", "reranker", "e2rank", "answers", "depth")}
    used = {name: named(value) if isinstance(value, str) else value for name, value in used.items()}
    used |= {"documents": len(data.documents), "queries": len(data.queries), "answer expert trained": _systems.answers(chosen)}
    more: dict[str, Any] = {"milliseconds": milliseconds, "megabytes": megabytes, "figures": figures, "on_two_threads": two, "used": used}
    content = _measure.result("pipeline", __doc__, ratios, [], chosen, **more)
    _measure.show(content, chosen.to)
    return content


if __name__ == "__main__":
    main()
