"""`System`: what is evaluated and searched with. One unified model on both sides, or two specialists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold.model.unified import UnifiedModel
from twofold.tasks import Task, task_name


class System:
    """An embedder and a reranker (the same object for a unified model) and the weight of the pair score in a pipeline.

    `variant`: its tasks are `retrieve:VARIANT` and `rerank:VARIANT`.
    """

    def __init__(self, embedder: UnifiedModel, reranker: UnifiedModel, rerank_weight: float, variant: str = "") -> None:
        if not 0 <= rerank_weight <= 1:
            raise ValueError(f"rerank_weight {rerank_weight}: use 0 to 1")
        self.embedder, self.reranker, self.rerank_weight, self.variant = embedder, reranker, rerank_weight, variant

    @classmethod
    def of(cls, model: UnifiedModel, variant: str = "") -> System:
        """One model for both. Raises ValueError for a variant that it does not have."""
        if variant and task_name("retrieve", variant) not in model.tasks:
            raise ValueError(f"no variant {variant!r}: this model does {sorted(model.tasks)}")
        return cls(model, model, model.variant_weights.get(variant, model.rerank_weight), variant)

    @property
    def models(self) -> tuple[UnifiedModel, ...]:
        """The loaded models: one or two."""
        return (self.embedder,) if self.embedder is self.reranker else (self.embedder, self.reranker)

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `UnifiedModel.encode_queries`."""
        return self.embedder.encode_queries(texts, self.variant)

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `UnifiedModel.encode_documents`."""
        return self.embedder.encode_documents(texts, self.variant)

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """See `UnifiedModel.score`."""
        return self.reranker.score(pairs, variant=self.variant)

    @property
    def reads_lists(self) -> bool:
        """Whether the reranker's score of a pair depends on the query's other candidates."""
        return self.reranker.reads_lists(self.variant)

    @property
    def truncated(self) -> dict[str, int]:
        """Texts and pairs that were cut so far."""
        return {"texts": self.embedder.truncated["texts"], "pairs": self.reranker.truncated["pairs"]}

    def describe(self) -> dict[str, Any]:
        """Plain facts for a result file: models, backbone, lengths, parameters, precision, attention."""
        return {
            "models": len(self.models),
            **({"variant": self.variant} if self.variant else {}),
            "rerank_weight": self.rerank_weight,
            "members": [_facts(model) for model in self.models],
        }


def _facts(model: UnifiedModel) -> dict[str, Any]:
    declared = {name: dict(task.declares) for name, task in model.tasks.items() if isinstance(task, Task) and task.declares}
    groups = {group: sum(parameter.numel() for _, parameter in members) for group, members in model.groups().items()}
    return {
        "backbone": model.spec.backbone,
        "tasks": sorted(model.spec.tasks),
        "pooling": model.backbone.pooling,
        "max_length": model.tokens.max_length,
        "pair_length": model.tokens.pair_length,
        "query_length": model.tokens.query_length,
        "precision": model.spec.precision,
        "device": model.backbone.device.type,
        "attention": "packed" if model.backbone.packed else f"padded: {model.backbone.why_padded}",
        "router": model.spec.plan.router if model.spec.plan.experts else None,
        "parameters": groups,
        **({"declares": declared} if declared else {}),
    }
