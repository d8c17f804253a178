"""A LoRA per domain for queries, of which the nearest domain's is used (RouterRetriever-style, Lee et al. 2025, arXiv 2409.02685).

Documents are encoded by the frozen backbone alone, so that one index serves all domains; a query is first encoded by it too, and the
centroid nearest to that vector says whose LoRA encodes it again. Differs from the paper: what a domain is and how its centroid is found
(`tasks/_domains.py`); a MiniLM instead of Contriever; and since this harness has two tasks, reranking has a LoRA of its own.
"""

from __future__ import annotations

from typing import Any

from twofold.core.inject import Expert, LayerPlan
from twofold.methods import HEADS, Member, Method, Stage, expert_of
from twofold.tasks import kind_of


def build(
    *,
    tasks: tuple[str, ...],
    domains: tuple[str, ...] = ("one", "two", "three"),
    rank: int = 6,
    alpha: float | None = None,
    targets: str = ".*",
) -> Method:
    """`domains`: names of datasets, or any names, which are then found by clustering; `rank` of each LoRA (4 · 6 matches a total of 24)."""
    experts: list[Expert] = []
    sees: dict[str, tuple[str, ...]] = {}
    options: dict[str, dict[str, Any]] = {}
    for task in tasks:
        own = {f"{task}/{domain}": f"{expert_of(task)}:{domain}" for domain in domains} if kind_of(task) == "retrieve" else {}
        if own:
            sees[f"{task}/document"] = ()
            options[task] = {"domains": list(domains)}
        sees |= {task: tuple(own.values()) or (expert_of(task),), **{passes: (name,) for passes, name in own.items()}}
        experts += [Expert(name, rank, alpha) for name in sees[task]]
    plan = LayerPlan(tuple(experts), sees=sees, targets=targets, router="by_task")
    stage = Stage("joint", tasks, ("expert:*", *HEADS))
    return Method("router_retriever", (Member("unified", tasks, (stage,), plan, options=options),))
