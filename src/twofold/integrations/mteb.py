"""MTEB: a system in its three roles, and a BEIR folder as a task that needs no network.

Three classes, since an object that can both encode and predict is only ever used for one of the two (mteb 2.26, `abstasks/retrieval.py`).
Each names itself: MTEB would give every local folder the same name, and results would overwrite each other.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from mteb import TaskMetadata
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from numpy.typing import NDArray

from twofold.data.sources import open_dataset
from twofold.model.system import System
from twofold.ranking import exact_top_k, interpolate, ranked

DEPTH = 100
"""Documents of the first stage that the pipeline reranks, unless said otherwise."""


def meta(system: System, name: str, revision: str, role: str) -> ModelMeta:
    """How MTEB knows a role of a system: `name-role`. `name` is `owner/model`; `revision` should change with the weights."""
    known = {
        "name": f"{name}-{role}",
        "revision": revision,
        "max_tokens": system.embedder.tokens.max_length,
        "embed_dim": system.embedder.width,
        "framework": ["PyTorch"],
        "similarity_fn_name": ScoringFunction.COSINE,
        "open_weights": True,
        "n_parameters": sum(parameter.numel() for parameter in system.embedder.parameters()),
    }
    return ModelMeta.create_empty(known)


class Encoder(AbsEncoder):  # type: ignore[misc, unused-ignore]
    """The embedder."""

    def __init__(self, system: System, name: str, revision: str = "1") -> None:
        self.system, self.mteb_model_meta = system, meta(system, name, revision, "retrieve")

    def encode(self, inputs: Any, *, prompt_type: Any = None, **_: Any) -> NDArray[np.float32]:
        """(N, D): queries with the query's prompt, documents with the document's, anything else with none."""
        return self.system.embedder.encode(_texts(inputs), prompt=_prompt(prompt_type), variant=self.system.variant)


class Reranker:
    """The reranker, for tasks that bring their candidates (`task.convert_to_reranking(folder_of_predictions, top_k)`)."""

    def __init__(self, system: System, name: str, revision: str = "1") -> None:
        self.system, self.mteb_model_meta = system, meta(system, name, revision, "rerank")

    def predict(self, inputs1: Any, inputs2: Any, **_: Any) -> NDArray[np.float32]:
        """(N,) raw scores of the pairs."""
        return self.system.score(list(zip(_texts(inputs1), _texts(inputs2), strict=True)))


class Pipeline:
    """Retrieve, then rerank the best `depth`: what is behind them keeps its place."""

    def __init__(self, system: System, name: str, revision: str = "1", depth: int = DEPTH) -> None:
        self.system, self.depth, self.mteb_model_meta = system, depth, meta(system, name, revision, "pipeline")
        self._ids: list[str] = []
        self._place: dict[str, int] = {}
        self._bodies: list[str] = []
        self._vector_MD = np.zeros((0, system.embedder.width), np.float32)

    def index(self, corpus: Any, **_: Any) -> None:
        """Encodes the corpus, and keeps its texts."""
        self._ids = [str(row["id"]) for row in corpus]
        self._place = {identity: i for i, identity in enumerate(self._ids)}
        self._bodies = [_body(row) for row in corpus]
        self._vector_MD = self.system.encode_documents(self._bodies)

    def search(
        self, queries: Any, *, top_k: int, top_ranked: Mapping[str, list[str]] | None = None, **_: Any
    ) -> dict[str, dict[str, float]]:
        """Query → document → score. Candidates that are given are all reranked, and nothing else is looked at."""
        texts = {str(row["id"]): str(row["text"]) for row in queries}
        vectors, given = self.system.encode_queries(list(texts.values())), top_ranked or {}
        asked = zip(texts.items(), vectors, strict=True)
        return {query: self._one(text, vector_D, top_k, given.get(query)) for (query, text), vector_D in asked}

    def _one(self, query: str, vector_D: NDArray[np.float32], top_k: int, given: Sequence[str] | None) -> dict[str, float]:
        """As in an evaluation: what is behind the reranked head keeps its order below it."""
        if given is None:
            rows, scores = exact_top_k(vector_D[None], [self._vector_MD], top_k)
            first = {self._ids[i]: float(score) for i, score in zip(rows[0], scores[0], strict=True)}
        else:
            first = {identity: float(self._vector_MD[self._place[identity]] @ vector_D) for identity in given}
        head = ranked(first)[: self.depth if given is None else None]
        pair_N = self.system.score([(query, self._bodies[self._place[identity]]) for identity in head])
        pair = {identity: float(score) for identity, score in zip(head, pair_N, strict=True)}
        return interpolate({query: first}, {query: pair}, self.system.rerank_weight)[query]


def local_task(dataset: str | Path, split: str = "test", name: str = "LocalRetrieval") -> AbsTaskRetrieval:
    """A BEIR folder, or whatever `--data` takes, as a task of MTEB. Nothing is downloaded."""
    opened = open_dataset(dataset)

    class Local(AbsTaskRetrieval):  # type: ignore[misc, unused-ignore]
        metadata = TaskMetadata(
            name=name,
            dataset={"path": name, "revision": opened.fingerprint[:12]},
            description=f"{opened.name}, {split} split, from this machine",
            type="Retrieval",
            category="t2t",
            eval_splits=[split],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
            date=(datetime.date.today().isoformat(),) * 2,
        )

        def load_data(self, num_proc: int | None = None, **_: Any) -> None:  # noqa: ARG002 (MTEB's signature)
            """Reads the folder."""
            judged = opened.qrels(split)
            rows = [{"id": document.id, "title": document.title, "text": document.text} for document in opened.corpus]
            asked = [{"id": identity, "text": opened.texts[identity]} for identity in judged]
            relevant = {query: {document: int(grade) for document, grade in grades.items()} for query, grades in judged.items()}
            data: Any = {
                "corpus": Dataset.from_list(rows),
                "queries": Dataset.from_list(asked),
                "relevant_docs": relevant,
                "top_ranked": None,
            }
            self.dataset = {"default": {split: data}}
            self.data_loaded = True

    return Local()


def _texts(inputs: Any) -> list[str]:
    return [str(text) for batch in inputs for text in batch["text"]]


def _body(row: Mapping[str, Any]) -> str:
    return f"{row.get('title') or ''} {row['text']}".strip()


def _prompt(prompt_type: Any) -> str | None:
    kinds = {"query": "query", "document": "document", "passage": "document"}
    return kinds.get(str(getattr(prompt_type, "value", prompt_type)))
