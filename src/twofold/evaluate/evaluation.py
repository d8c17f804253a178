"""One evaluation: a system measured on a split beside BM25, with its ceiling, deltas and tests, as one JSON file."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from twofold import provenance
from twofold.data.sources import Dataset
from twofold.errors import DataError
from twofold.evaluate.measures import MEASURES, mean, per_query
from twofold.evaluate.reranking import oracle, rerank_run
from twofold.evaluate.retrieval import Judged, Progress, dense_run, judged
from twofold.evaluate.runs import drop_own_id, sha256, top, write_trec
from twofold.evaluate.significance import LEVEL, RESAMPLES, paired_delta
from twofold.ranking import Bm25, interpolate
from twofold.records import Run

KIND = "evaluation"
PRIMARY = "nDCG@10"
DELTAS = (("reranked", "dense"), ("pipeline", "dense"), ("bm25_reranked", "bm25"))
FIXED = {"measures": list(MEASURES), "test": "paired randomisation, two-sided", "interval": f"bootstrap over queries, {LEVEL:.0%}"}
"""Settings that nobody chooses, told in every result."""


class System(Protocol):
    """What can be evaluated: anything that embeds and scores."""

    @property
    def rerank_weight(self) -> float:
        """The second stage's weight in the pipeline, in [0, 1], as tuned on dev and saved."""

    def encode_queries(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """(N,) queries → (N, D) vectors of unit length."""

    def encode_documents(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """(N,) documents → (N, D) vectors of unit length."""

    def score(self, pairs: Sequence[tuple[str, str]], /) -> NDArray[np.float32]:
        """(query, document) pairs → (N,) raw relevance scores. A query's pairs stand together, its best candidate first, which matters
        to a system with `reads_lists`: it is asked for each first stage's candidates apart."""

    def describe(self) -> dict[str, Any]:
        """What it is: backbone, fingerprint, banks, routers, …; JSON types only."""


@dataclass(frozen=True)
class Settings:
    """How deep each stage looks, and what the tests are made with."""

    depth: int = 20
    """How many of its own candidates the system reranks."""
    bm25_rerank_depth: int = 20
    """How many of BM25's candidates the system reranks."""
    retrieval_depth: int = 100
    """How many documents every first stage keeps."""
    chunk: int = 1024
    """How many documents are encoded at a time."""
    resamples: int = RESAMPLES
    seed: int = 0
    """Of the randomisation tests and bootstrap intervals."""

    def __post_init__(self) -> None:
        if not 0 < max(self.depth, self.bm25_rerank_depth) <= self.retrieval_depth or min(self.depth, self.bm25_rerank_depth) < 1:
            raise ValueError(
                f"reranking depths {self.depth} (own) and {self.bm25_rerank_depth} (BM25) should lie between 1 and {self.retrieval_depth}, "
                "the depth of retrieval"
            )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result file. `rows`: row → measure → mean; `per_query`: row → query id → nDCG@10; `deltas`: "a-b" → what a gains over b.

    `train` holds the training's facts, or is None where nothing was trained: `steps` (task → steps), `data` (fingerprint),
    `batch`, `lr`, `seed`, `tokens`, `datasets` (names), `parameters` (`total`, `trainable`, `active`).
    """

    kind: str = KIND
    name: str
    method: str
    system: Mapping[str, Any]
    train: Mapping[str, Any] | None
    data: Mapping[str, Any]
    settings: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, float]]
    deltas: Mapping[str, Mapping[str, Any]]
    per_query: Mapping[str, Mapping[str, float]]
    truncated: Mapping[str, int]
    environment: Mapping[str, Any]
    seconds: Mapping[str, float]

    def to_json(self) -> str:
        """The result file's text: keys in their order, one line for each innermost group."""
        return _json(dataclasses.asdict(self)) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "evaluation") -> Evaluation:
        """Read what `to_json` wrote. Raises DataError, beginning with `where`, for anything else."""
        try:
            fields = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}:{error.lineno}: not JSON: {error.msg}") from error
        if not isinstance(fields, dict) or fields.get("kind") != KIND:
            raise DataError(f"{where}: not the result of an evaluation; it should be an object with kind = {KIND!r}")
        names = {field.name for field in dataclasses.fields(cls)}
        if fields.keys() != names:
            raise DataError(f"{where}: missing keys {sorted(names - fields.keys())}, unknown keys {sorted(fields.keys() - names)}")
        return cls(**fields)

    def save(self, path: Path) -> None:
        """Write the result file whole or not at all, folders made as needed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_text(self.to_json(), encoding="utf-8")
        beside.replace(path)


def evaluate(
    system: System,
    dataset: Dataset,
    split: str = "test",
    *,
    name: str,
    method: str,
    train: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
    truncated: Callable[[], Mapping[str, int]] | None = None,
    runs_folder: Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a system on every query of a split that has a positive judgement; the other queries are counted.

    Rows: `bm25` and `dense` (whole corpus); `reranked` and `pipeline` (own candidates by the raw pair score, and interpolated with the
    system's saved weight), `bm25_reranked` and `bm25_pipeline` (BM25's candidates); `oracle` and `bm25_oracle` (ceilings). Below the
    reranked depth the first stage's order stays. `truncated` is asked at the end for the counts of texts that were cut. `runs_folder`
    receives every row as a TREC run file. Raises ValueError for a rerank weight outside [0, 1], DataError where nothing is judged.
    """
    settings = settings or Settings()
    if not 0 <= system.rerank_weight <= 1:
        raise ValueError(f"the system's rerank weight is {system.rerank_weight}; it should lie in [0, 1]")
    questions, clock = judged(dataset, split), _Clock()
    bm25, dropped = _bm25(dataset, questions, settings.retrieval_depth)
    clock.lap("bm25")
    dense = dense_run(system.encode_queries, system.encode_documents, dataset, split, settings.retrieval_depth, settings.chunk, progress)
    clock.lap("dense")
    runs = _reranked_rows(system, dataset, split, questions, bm25, dense, settings, progress)
    clock.lap("rerank")
    if runs_folder is not None:
        for row, run in runs.items():
            write_trec(run, runs_folder / f"{row}.trec", f"{name}-{row}")
    measured = {row: per_query(run, questions.qrels) for row, run in runs.items()}
    deltas = {f"{a}-{b}": _delta(measured[a][PRIMARY], measured[b][PRIMARY], settings) for a, b in DELTAS}
    return Evaluation(
        name=name,
        method=method,
        system=system.describe(),
        train=train,
        data=_facts(dataset, split, questions, dropped),
        settings={**dataclasses.asdict(settings), **FIXED, "rerank_weight": system.rerank_weight, "bm25_sha256": sha256(bm25)},
        rows={row: _rounded({measure: mean(values) for measure, values in by_measure.items()}) for row, by_measure in measured.items()},
        deltas=deltas,
        per_query={row: _rounded(by_measure[PRIMARY]) for row, by_measure in measured.items()},
        truncated=dict(truncated()) if truncated is not None else {},
        environment=provenance.environment(),
        seconds=clock.laps,
    )


def _bm25(dataset: Dataset, questions: Judged, depth: int) -> tuple[Run, int]:
    run = Bm25(iter(dataset.corpus)).run(questions.queries, depth + 1)
    kept, dropped = drop_own_id(run, questions.qrels)
    return top(kept, depth), dropped


def _reranked_rows(
    system: System, dataset: Dataset, split: str, questions: Judged, bm25: Run, dense: Run, settings: Settings, progress: Progress | None
) -> dict[str, Run]:
    """Every row's run. A pair that both first stages propose is scored once, unless its score depends on the other candidates."""
    own, lexical = top(dense, settings.depth), top(bm25, settings.bm25_rerank_depth)
    if getattr(system, "reads_lists", False):
        own_scores, lexical_scores = (rerank_run(system.score, each, dataset, split, progress=progress) for each in (own, lexical))
    else:
        both = {query: {**own[query], **lexical.get(query, {})} for query in own}
        scores = rerank_run(system.score, both, dataset, split, progress=progress)
        own_scores, lexical_scores = _only(scores, own), _only(scores, lexical)
    return {
        "bm25": bm25,
        "dense": dense,
        "reranked": interpolate(dense, own_scores, 1.0),
        "pipeline": interpolate(dense, own_scores, system.rerank_weight),
        "bm25_reranked": interpolate(bm25, lexical_scores, 1.0),
        "bm25_pipeline": interpolate(bm25, lexical_scores, system.rerank_weight),
        "oracle": oracle(dense, questions.qrels, settings.depth),
        "bm25_oracle": oracle(bm25, questions.qrels, settings.bm25_rerank_depth),
    }


def _only(scores: Run, candidates: Run) -> Run:
    return {query: {document: scores[query][document] for document in candidates[query]} for query in candidates}


def _facts(dataset: Dataset, split: str, questions: Judged, own_id_dropped: int) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "split": split,
        "queries": len(questions.queries),
        "queries_without_positive": questions.without_positive,
        "documents": len(dataset.corpus),
        "skipped": dict(dataset.skipped),
        "own_id": "a query's own id is dropped from its candidates (as for ArguAna) unless judged relevant to it",
        "own_id_dropped_from_bm25": own_id_dropped,
    }


def _delta(a: Mapping[str, float], b: Mapping[str, float], settings: Settings) -> dict[str, Any]:
    return _rounded({"measure": PRIMARY, **dataclasses.asdict(paired_delta(a, b, settings.resamples, settings.seed))})


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in values.items()}


def _json(value: Any, indent: str = "") -> str:
    """JSON with one line for each innermost group, so that a result of thousands of queries stays readable in a diff."""
    nested = isinstance(value, Mapping) and (not indent or any(isinstance(item, Mapping) for item in value.values()))
    if not nested:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    inner = indent + "  "
    lines = (f"{inner}{json.dumps(key, ensure_ascii=False)}: {_json(item, inner)}" for key, item in value.items())
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


class _Clock:
    """Seconds of each stage by the wall clock."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = round(now - self._last, 2), now
