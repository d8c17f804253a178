"""The sides that `bench/pipeline.py` compares: each is what a search needs of its models, on one backbone, and what it weighs.

ours         one model for all stages; its answer expert is the model's own, or a fresh one of the same size, which costs the same
two models   sentence-transformers' SentenceTransformer, and a CrossEncoder with a head on the same backbone
e2rank       one embedder that reranks by one pass over the query and its first candidates; their own vectors come from the index
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench import packed, rerank
from twofold.backbone.load import resolve
from twofold.core.inject import Expert, LayerPlan
from twofold.model import folder
from twofold.model.build import build_model
from twofold.model.grow import Growth
from twofold.model.spec import ModelSpec
from twofold.model.unified import TOKEN_BUDGET, UnifiedModel
from twofold.records import Score
from twofold.search.answers import Extractive
from twofold.search.pipeline import Callables

ANSWER = Growth(LayerPlan((Expert("answer", 16),)), {"answer": {}})
"""What `twofold train --add answer` adds: an expert of rank 16 and a head."""


@dataclass
class Side:
    """One way from a question to an answer."""

    callables: Callables
    models: list[Any]
    files: list[Path]
    """What must lie on the disk: folders."""
    reranks: bool
    """Whether the order that it gives by reranking means anything: a head that nobody trained has none."""
    reader: Extractive | None = None
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """Text → its vector in the index, for a reranker that uses them."""

    @property
    def disk(self) -> float:
        """Megabytes of weights, tokenizers and settings."""
        files = {each.resolve() for place in self.files for each in place.rglob("*") if each.suffix in (".safetensors", ".json", ".txt")}
        return round(sum(each.stat().st_size for each in files) / 1e6, 1)


def facts(model: str) -> dict[str, Any]:
    """The saved spec of a model."""
    found: dict[str, Any] = folder.read_config(folder.locate(model))["spec"]
    return found


def answers(chosen: argparse.Namespace) -> bool:
    """Whether our model has learnt to answer."""
    return "answer" in facts(chosen.model)["tasks"]


def ours(chosen: argparse.Namespace, _: Path, precision: str = "fp32") -> Side:
    """The one model."""
    model = folder.load(chosen.model, precision=precision, growth=None if answers(chosen) else ANSWER)
    place = folder.locate(chosen.model)
    files = [place] if (place / "backbone").is_dir() else [place, Path(resolve(model.spec.backbone))]
    calls = Callables(model.encode_queries, model.encode_documents, model.score, model.rerank_weight)
    return Side(calls, [model], files, True, Extractive.of(model))


def two_models(chosen: argparse.Namespace, temporary: Path) -> Side:
    """The bi-encoder, and a cross-encoder: of random head, or what the method specialists trained, in sentence-transformers too."""
    from sentence_transformers import CrossEncoder

    embedder = packed.peer(chosen.backbone, "fp32", facts(chosen.model)["max_length"])
    files, weight = [Path(resolve(chosen.backbone))], 1.0
    if chosen.reranker:
        place = folder.locate(chosen.reranker)
        reranker, weight = CrossEncoder(str(place), device="cpu"), folder.read_config(place)["rerank_weight"]
        files.append(place)
    else:
        reranker = rerank.peer(chosen.backbone, temporary / "cross-encoder", torch.float32)
        files.append(temporary / "cross-encoder")
    calls = Callables(embedder.encode, embedder.encode, lambda pairs: reranker.predict(list(pairs)), weight)
    return Side(calls, [embedder, reranker], files, bool(chosen.reranker))


def e2rank(chosen: argparse.Namespace, _: Path) -> Side:
    """The listwise prompt on the same backbone, which nobody trained for it."""
    saved = facts(chosen.model)
    tasks: Mapping[str, Mapping[str, Any]] = {"retrieve": {}, "rerank": {"form": "listwise", "documents_as": "retrieve"}}
    lengths = {name: saved[name] for name in ("max_length", "pair_length", "query_length")}
    options = {"k": 2, "document_tokens": 16} if chosen.quick else {}
    spec = ModelSpec(chosen.backbone, {**tasks, "rerank": {**tasks["rerank"], **options}}, precision="fp32", **lengths)
    return _listwise(build_model(spec).eval(), Path(resolve(chosen.backbone)))


def e2rank_trained(chosen: argparse.Namespace, _: Path) -> Side:
    """A model that the method e2rank trained, whatever its backbone."""
    return _listwise(folder.load(chosen.e2rank, precision="fp32"), folder.locate(chosen.e2rank))


def _listwise(model: UnifiedModel, place: Path) -> Side:
    vectors: dict[str, NDArray[np.float32]] = {}
    calls = Callables(model.encode_queries, model.encode_documents, listwise(model, vectors), 0.5)
    return Side(calls, [model], [place], True, vectors=vectors)


def listwise(model: UnifiedModel, vectors: Mapping[str, NDArray[np.float32]]) -> Score:
    """E2Rank's score of one query's candidates: one pass over the prompt, and cosines with vectors that are there already.

    `UnifiedModel.score` gives the same and makes the candidates' vectors anew.
    """
    task: Any = model.tasks["rerank"]

    def score(pairs: Any) -> NDArray[np.float32]:
        own_LD = torch.from_numpy(np.stack([vectors[text] for _, text in pairs]))
        with torch.inference_mode():
            asked = task.pack(model.tokens, [(pairs[0][0], *(text for _, text in pairs[: task.k]))]).asked
            pseudo_1D, _ = task.pseudo_queries(model.encoder, asked, [own_LD], TOKEN_BUDGET)
            found: NDArray[np.float32] = task.scores(pseudo_1D, [own_LD])[0].float().numpy()
        return found

    return score


Make = Callable[[argparse.Namespace, Path], Side]


def sides(chosen: argparse.Namespace, bf16: bool) -> dict[str, Make]:
    """Name → what makes it."""
    found: dict[str, Make] = {"ours": ours, "two models": two_models, "e2rank": e2rank}
    if bf16:
        found["ours, bf16"] = lambda chosen, temporary: ours(chosen, temporary, "bf16")
    if chosen.e2rank:
        found["e2rank, trained"] = e2rank_trained
    return found
