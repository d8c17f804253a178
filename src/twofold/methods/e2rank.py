"""E2Rank-style (arXiv 2510.22733): one embedder that also reranks, by embedding the query together with its candidates.

Stage 1 learns retrieval by InfoNCE; stage 2 goes on with InfoNCE + 2 · RankNet over the listwise pseudo-query (`tasks/listwise.py`, which
says what differs there). All parameters are trained, or one LoRA. Differs from the paper: both losses read the batches that every other
method reads, so RankNet's lists are not those of InfoNCE; the stages share the trial's steps and its learning rate (there 1.5M and 87K
queries at 2e-5 and 5e-6). Side rows: `trained = false` is stage 1 alone, whose dense row is "stage 1 only" and whose reranked row the
listwise prompt without training; `feedback = "rocchio"` with it is plain vector feedback.
"""

from __future__ import annotations

from typing import Any

from twofold.core.inject import Expert, LayerPlan
from twofold.methods import HEADS, Member, Method, Stage
from twofold.tasks import kind_of, task_name, variant_of


def build(
    *,
    tasks: tuple[str, ...],
    form: str = "full",
    rank: int = 24,
    alpha: float | None = None,
    targets: str = ".*",
    first: float = 0.5,
    trained: bool = True,
    feedback: str = "prompt",
    k: int = 6,
    document_tokens: int = 64,
    labels: str = "grades",
) -> Method:
    """`form`: "full" or "lora" of `rank`; `first`: stage 1's share of the steps; `trained`: whether there is a stage 2; `feedback`, `k`,
    `document_tokens`, `labels`: the listwise task's."""
    if form not in ("full", "lora") or not 0 < first < 1:
        raise ValueError(f"e2rank: form {form!r}, first {first}; use 'full' or 'lora', and a share between 0 and 1")
    plan = LayerPlan((Expert("shared", rank, alpha),), targets=targets) if form == "lora" else LayerPlan()
    trains = ("expert:*" if form == "lora" else "backbone", *HEADS)
    lists = tuple(task for task in tasks if kind_of(task) == "rerank")
    others = tuple(task for task in tasks if task not in lists)
    options: dict[str, dict[str, Any]] = {task: {"temperature": 0.03} for task in others if kind_of(task) == "retrieve"}
    for task in lists:
        embedder = task_name("retrieve", variant_of(task))
        options[task] = {
            "form": "listwise",
            "documents_as": embedder if embedder in tasks else task,
            **{"feedback": feedback, "k": k, "document_tokens": document_tokens, "labels": labels, "factor": 2.0},
        }
    stages = [Stage("embedding", others, trains, share=first)] if others else []
    if lists and (trained or not others):
        stages.append(Stage("listwise", tasks, trains, share=1 - first if others else 1.0))
    return Method("e2rank", (Member("unified", tasks, tuple(stages), plan, options=options),))
