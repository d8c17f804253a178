"""A loaded model as search sees it: functions of texts, and how texts fall into tokens. Nothing here knows what computes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twofold.errors import CheckpointError
from twofold.model.folder import load_system
from twofold.model.state import fingerprint
from twofold.model.system import System
from twofold.search.passages import Span
from twofold.search.pipeline import Callables, Routing
from twofold.tasks import task_name


@dataclass(frozen=True)
class Reader:
    """What indexing and searching need of a model."""

    callables: Callables
    width: int
    fingerprint: str
    """Of the task that makes the vectors: what an index and a model must agree on."""
    identity: dict[str, Any]
    """What an index remembers of the model beside that: backbone, precision, variant."""
    room: int
    """Tokens that a passage may have, so that neither the embedder nor the reranker cuts it, its title included."""
    tokenizer: Any

    @classmethod
    def of(cls, system: System) -> Reader:
        """Of one model, or of two."""
        embedder, reranker = system.embedder, system.reranker
        texts, pairs = embedder.tokens, reranker.tokens
        room = min(texts.max_length - texts.single.size, pairs.pair_length - pairs.frame.size - pairs.query_length)
        task = task_name("retrieve", system.variant)

        def routing(query: str, bodies: Sequence[str]) -> tuple[Routing, Sequence[Routing]]:
            return _routing(system, query, bodies)

        return cls(
            Callables(system.encode_queries, system.encode_documents, system.score, system.rerank_weight, routing),
            embedder.width,
            fingerprint(embedder, task),
            {"backbone": embedder.spec.backbone, "precision": embedder.spec.precision, "variant": system.variant},
            room,
            texts.tokenizer,
        )

    @classmethod
    def load(cls, model: str | Path, precision: str | None = None, variant: str = "") -> Reader:
        """Of a saved folder, a hub id or `builtin`. Raises CheckpointError as loading does, and for a variant that it does not have."""
        system = load_system(model, precision=precision)
        try:
            return cls.of(System.of(system.embedder, variant) if variant else system)
        except ValueError as error:
            raise CheckpointError(f"{model}: {error}") from error

    def spans(self, texts: Sequence[str]) -> list[list[Span]]:
        """Where the tokens of each text lie in it."""
        if not texts:
            return []
        found = self.tokenizer(
            list(texts), add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False, verbose=False
        )
        return [[(start, end) for start, end in row] for row in found["offset_mapping"]]


def _routing(system: System, query: str, bodies: Sequence[str]) -> tuple[Routing, Sequence[Routing]]:
    """One text or pair at a time: so the mean over what a model returns is the mean over that text's tokens.

    A reranker that reads whole lists has no routing of a pair: nothing is said of its pairs.
    """
    alone = _weights(system.embedder.routings(texts=[query], prompt="query", variant=system.variant))
    if system.reads_lists:
        return alone, [{} for _ in bodies]
    return alone, [_weights(system.reranker.routings(pairs=[(query, body)], variant=system.variant)) for body in bodies]


def _weights(routings: Mapping[str, Any]) -> Routing:
    """Layer → expert → its mean weight."""
    found = {}
    for layer, routing in routings.items():
        weights = routing.weight.float().flatten(0, -2).mean(0).tolist()
        found[layer] = {expert: round(weight, 4) for expert, weight in zip(routing.experts, weights, strict=True)}
    return found
