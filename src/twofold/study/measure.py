"""Measuring one cell: each task by itself on the test sample, per query, with what the routers do beside it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from twofold.core.inject import mixtures
from twofold.core.routing import Routing
from twofold.data.labelled import LabelledDataset
from twofold.data.sources import Dataset
from twofold.evaluate.measures import mean, per_query
from twofold.evaluate.reranking import rerank_run
from twofold.evaluate.retrieval import dense_run, judged
from twofold.evaluate.runs import top
from twofold.model.system import System
from twofold.model.unified import UnifiedModel
from twofold.ranking import interpolate, ranked
from twofold.records import Run
from twofold.study.file import MeasureConfig
from twofold.study.sample import Candidates
from twofold.train.dev import DevSets

PRIMARY = "nDCG@10"
GATE_TEXTS = 64
"""Test queries' documents and pairs whose routing a cell notes."""


def ranking_rows(system: System, dataset: Dataset, given: Candidates, kinds: Sequence[str], settings: MeasureConfig) -> dict[str, Any]:
    """The rows of one test set, as JSON types: `dense` (whole sub-corpus), `rerank` (BM25's candidates in the order of the raw pair
    score), and `pipeline` (the system's own candidates, mixed with its weight), of what the system does.

    `rows`: row → measure → mean; `per_query`: row → query id → nDCG@10; `seconds` of each.
    """
    qrels, clock = judged(dataset, "test").qrels, time.perf_counter()
    runs: dict[str, Run] = {}
    seconds: dict[str, float] = {}
    if "retrieve" in kinds:
        runs["dense"] = dense_run(system.encode_queries, system.encode_documents, dataset, "test")
        seconds["dense"], clock = time.perf_counter() - clock, time.perf_counter()
    if "rerank" in kinds:
        runs |= _reranked(system, dataset, given.run, runs.get("dense"), settings)
        seconds["rerank"] = time.perf_counter() - clock
    values = {row: per_query(run, {query: qrels[query] for query in run}) for row, run in runs.items()}
    return {
        "rows": {row: {name: round(mean(each), 6) for name, each in found.items()} for row, found in values.items()},
        "per_query": {row: {query: round(value, 6) for query, value in found[PRIMARY].items()} for row, found in values.items()},
        "seconds": {row: round(value, 2) for row, value in seconds.items()},
    }


def _reranked(system: System, dataset: Dataset, given: Run, dense: Run | None, settings: MeasureConfig) -> dict[str, Run]:
    """BM25's candidates, and the system's own; a pair of both is scored once, unless its score depends on its neighbours."""
    own = {} if dense is None or not settings.pipeline_depth else top({query: dense[query] for query in given}, settings.pipeline_depth)
    if system.reads_lists:
        fixed, mine = (rerank_run(system.score, run, dataset, "test") if run else {} for run in (given, own))
    else:
        scores = rerank_run(system.score, {query: {**own.get(query, {}), **given[query]} for query in given}, dataset, "test")
        fixed, mine = ({query: {d: scores[query][d] for d in run[query]} for query in run} for run in (given, own))
    if not own or dense is None:
        return {"rerank": fixed}
    first = {query: dense[query] for query in own}
    return {"rerank": fixed, "pipeline": interpolate(first, mine, system.rerank_weight)}


def label_rows(model: UnifiedModel, dataset: LabelledDataset, task: str = "classify") -> dict[str, Any]:
    """The row `classify` of one test set: per text, whether the label is the right one."""
    begun, texts = time.perf_counter(), dataset.split("test")
    guesses = model.predict(task, [one.text for one in texts])
    right = {f"{i}:{one.id}": float(guess.label == one.label) for i, (one, guess) in enumerate(zip(texts, guesses, strict=True))}
    accuracy = round(sum(right.values()) / len(right), 6)
    took = round(time.perf_counter() - begun, 2)
    return {"rows": {task: {"accuracy": accuracy}}, "per_query": {task: right}, "seconds": {task: took}}


def dev_scores(system: System, dev: DevSets | None, tasks: Sequence[str]) -> dict[str, float]:
    """Each of `tasks` → its measure on dev, asked of the model that does it. Reranking is of BM25's candidates, the same for all."""
    if dev is None:
        return {}
    found: dict[str, float] = {}
    for model in system.models:
        found |= dev.look(model, [task for task in tasks if task in model.spec.tasks])
    return {task: round(value, 6) for task, value in found.items()}


def gates(system: System, dataset: Dataset, given: Candidates) -> dict[str, dict[str, dict[str, float]]]:
    """Task → layer → expert → its mean weight over some test texts or pairs; empty without experts."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    queries = list(given.run)[:GATE_TEXTS]
    pairs = [(dataset.texts[query], dataset.corpus.document(ranked(given.run[query])[0]).body) for query in queries if given.run[query]]
    for model in system.models:
        if not any(True for _ in mixtures(model)):
            continue
        model.eval()
        if "retrieve" in model.spec.tasks:
            found["retrieve"] = _means(model.routings(texts=[document for _, document in pairs]))
        if "rerank" in model.spec.tasks and not model.reads_lists():
            found["rerank"] = _means(model.routings(pairs=pairs))
    return found


def _means(routings: Mapping[str, Routing]) -> dict[str, dict[str, float]]:
    return {
        layer: dict(zip(routing.experts, (round(float(each), 5) for each in routing.weight.float().flatten(0, -2).mean(0)), strict=True))
        for layer, routing in routings.items()
    }
