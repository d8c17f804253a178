"""Two models, one per task: what people load today. Fully fine-tuned, or a LoRA of rank R on a backbone of its own.

`losses = "qwen3"` is the form of Qwen3-Embedding and Qwen3-Reranker (Zhang et al. 2025, arXiv 2506.05176): InfoNCE whose denominator also
holds the other queries and the other documents against the positive, without what is nearer than the positive by 0.1; and
cross-entropy on the yes or no of every pair alone. `merge` makes one of several checkpoints of each model, as there. Their prompts are
`backbone.template = "qwen3"`, their score `tasks.rerank.options.head = "yes_no"`, for decoders; an encoder keeps its own. Differs from
the paper: no 150M synthetic pairs before, and both models see the data that every other method sees.
"""

from __future__ import annotations

from typing import Any

from twofold.core.inject import Expert, LayerPlan
from twofold.methods import HEADS, Member, Method, Stage, expert_of
from twofold.tasks import kind_of

QWEN3: dict[str, dict[str, Any]] = {
    "retrieve": {"query_negatives": True, "document_negatives": True, "margin": 0.1},
    "rerank": {"loss": "bce", "scale": 5.0},
}
"""The scale is an encoder's: a cosine times 20, where the other losses start, is as a logit near certainty of yes for every pair."""


def build(
    *,
    tasks: tuple[str, ...],
    form: str = "full",
    rank: int = 24,
    alpha: float | None = None,
    targets: str = ".*",
    losses: str = "own",
    merge: int = 0,
) -> Method:
    """`form`: "full" (all of the backbone) or "lora" of `rank` each; `targets`: the LoRA's layers; `losses`: the tasks' "own" or "qwen3";
    `merge`: so many checkpoints of each training become one (full only: an arc between LoRAs' factors is none between their updates)."""
    if form not in ("full", "lora") or losses not in ("own", "qwen3") or merge < 0 or (merge and form == "lora"):
        raise ValueError(
            f"specialists: form {form!r}, losses {losses!r}, merge {merge}; use 'full' or 'lora', 'own' or 'qwen3', and merge with 'full'"
        )
    members = []
    for task in tasks:
        plan = LayerPlan() if form == "full" else LayerPlan((Expert(expert_of(task), rank, alpha),), targets=targets)
        stage = Stage(task, (task,), ("backbone" if form == "full" else "expert:*", *HEADS))
        options = {task: QWEN3.get(kind_of(task), {})} if losses == "qwen3" else {}
        members.append(Member(task, (task,), (stage,), plan, options=options, merge=merge))
    return Method("specialists", tuple(members))
