"""A small fixed contest that a model can be scored on many times, and experts taken out of a model for a while.

Shapes: Q queries.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from twofold.core.inject import mixtures
from twofold.core.routing import Bank
from twofold.data.sources import Dataset
from twofold.evaluate.measures import per_query
from twofold.evaluate.reranking import rerank_run
from twofold.evaluate.retrieval import dense_run
from twofold.model.system import System
from twofold.model.unified import UnifiedModel
from twofold.probes._looking import block_name, layers_of
from twofold.probes._material import candidates, chosen, tokens_of
from twofold.probes._numbers import Floats, interval, rounded
from twofold.records import Run

MEASURE = "nDCG@10"
TASKS = ("retrieve", "rerank")
SILENCES = ("zero", "renormalised")


@dataclass(frozen=True)
class Arena:
    """Queries with a small corpus, each query's relevant documents and BM25's others, of which the same are reranked by every model."""

    dataset: Dataset
    split: str
    candidates: Run

    @classmethod
    def of(cls, dataset: Dataset, split: str, queries: int, depth: int) -> Arena:
        """`depth` documents of BM25 beside the relevant ones of each of so many queries. Raises DataError as `chosen` does."""
        small = chosen(dataset, split, queries)
        others, qrels = candidates(small, split, depth), small.qrels(split)
        rows = {query: {**dict.fromkeys((d for d, grade in qrels[query].items() if grade > 0), 0.0), **others[query]} for query in others}
        keep = {document for row in rows.values() for document in row}
        corpus = small.corpus.select(identity for identity in small.corpus.ids if identity in keep)
        return cls(replace(small, corpus=corpus), split, rows)

    @property
    def text(self) -> str:
        """How large it is, for a note."""
        pairs = sum(len(row) for row in self.candidates.values())
        return f"{self.dataset.name} {self.split}: {len(self.candidates)} queries, {len(self.dataset.corpus)} documents, {pairs} pairs"

    def score(self, system: System, task: str) -> Floats:
        """(Q,) nDCG@10 of dense retrieval over the small corpus, or of the candidates by the pair score."""
        qrels = self.dataset.qrels(self.split)
        run: Run
        if task == "retrieve":
            run = dense_run(system.encode_queries, system.encode_documents, self.dataset, self.split)
        else:
            run = rerank_run(system.score, self.candidates, self.dataset, self.split)
        values = per_query(run, qrels, (MEASURE,))[MEASURE]
        return np.array([values[query] for query in self.candidates])


@contextmanager
def cut(system: System, length: int) -> Iterator[None]:
    """Texts and pairs are cut to `length` tokens for a while (0: not); what is cut is not counted."""
    kept = [(model, model.tokens, dict(model.truncated)) for model in system.models]
    try:
        for model in system.models:
            model.tokens = tokens_of(model, length)
        yield
    finally:
        for model, tokens, counted in kept:
            model.tokens, model.truncated = tokens, counted


class Silenced(Bank):
    """A bank some of whose experts give nothing, whatever the router says.

    "zero": the others keep their weights; "renormalised": they share those of the silenced ones in proportion to their own.
    """

    def __init__(self, inner: Bank, silent: Collection[str], how: str = "zero") -> None:
        super().__init__()
        if how not in SILENCES:
            raise ValueError(f"silencing {how!r}: use one of {', '.join(SILENCES)}")
        self.inner, self.silent, self.how = inner, frozenset(silent), how

    def down(self, x: Tensor, experts: tuple[str, ...]) -> Tensor:
        return self.inner.down(x, experts)

    def up(self, y: Tensor, z: Tensor, weight: Tensor, experts: tuple[str, ...]) -> Tensor:
        return self.inner.up(y, z, self.left(weight, experts), experts)

    def delta(self, weight_E: Tensor, experts: tuple[str, ...]) -> Tensor:
        return self.inner.delta(self.left(weight_E, experts), experts)

    def left(self, weight: Tensor, experts: tuple[str, ...]) -> Tensor:
        """The weights (…, E) without those of the silent."""
        heard = weight.new_tensor([name not in self.silent for name in experts])
        left = weight * heard
        if self.how == "zero":
            return left
        total = left.sum(-1, keepdim=True)
        return left * (weight.sum(-1, keepdim=True) / total.clamp_min(1e-9)) * (total > 0)


@contextmanager
def without(model: UnifiedModel, experts: Collection[str], layers: Collection[str] | None = None, how: str = "zero") -> Iterator[None]:
    """The model without some experts for a while, in some of its layers or in all. Not for a model that other threads use."""
    kept = [(layer, layer.bank) for layer in mixtures(model.backbone.model) if layers is None or layer.layer in layers]
    try:
        for layer, bank in kept:
            layer.bank = Silenced(bank, experts, how)
        model.eval()
        yield
    finally:
        for layer, bank in kept:
            layer.bank = bank


def depth_groups(model: UnifiedModel) -> dict[str, frozenset[str]]:
    """all, early, middle and late → the layers there: thirds of the blocks that have experts; two are early and late."""
    layers = [layer.layer for layer in layers_of(model)]
    blocks = list(dict.fromkeys(map(block_name, layers)))
    third = {block: 3 * i // len(blocks) if len(blocks) > 2 else 2 * i for i, block in enumerate(blocks)}
    names = ("early", "middle", "late")
    groups = {name: frozenset(layer for layer in layers if third[block_name(layer)] == i) for i, name in enumerate(names)}
    return {"all": frozenset(layers)} | {name: own for name, own in groups.items() if own}


def change(before_Q: Floats, after_Q: Floats, seed: int) -> dict[str, float | None]:
    """The mean change of a score and its bootstrap interval over queries."""
    difference_Q = after_Q - before_Q
    low, high = interval(lambda at: difference_Q[at].mean(keepdims=True), len(difference_Q), seed)
    return {"change": rounded(float(difference_Q.mean())), "low": rounded(low[0]), "high": rounded(high[0])}


def carried(base_Q: Floats, part_Q: Floats, whole_Q: Floats, seed: int) -> dict[str, int | None]:
    """Of what `whole` gains over `base`, how much `part` gains, in whole percent, with its bootstrap interval over queries.

    None where the whole's own gain has an interval that reaches 0: there is nothing to have a share of.
    """
    gain = change(base_Q, whole_Q, seed)
    if gain["low"] is None or gain["low"] <= 0:
        return {"share": None, "share_low": None, "share_high": None}

    def share(at: NDArray[np.int64]) -> Floats:
        whole = (whole_Q - base_Q)[at].mean()
        return np.array([100 * (part_Q - base_Q)[at].mean() / whole if whole > 0 else np.nan])

    low, high = interval(share, len(base_Q), seed)
    point = share(np.arange(len(base_Q)))
    return {"share": _whole(point[0]), "share_low": _whole(low[0]), "share_high": _whole(high[0])}


def _whole(value: float) -> int | None:
    return round(value) if np.isfinite(value) else None
