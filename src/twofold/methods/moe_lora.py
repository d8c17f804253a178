"""Ours: an embedding, a reranking and a shared expert, mixed by a learned soft router; both tasks in every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twofold.core.inject import Expert, LayerPlan
from twofold.methods import HEADS, Member, Method, Stage


def build(
    *,
    tasks: tuple[str, ...],
    experts: tuple[str, ...] = ("embedding", "reranking", "shared"),
    rank: int = 8,
    ranks: Mapping[str, int] | None = None,
    alpha: float | None = None,
    targets: str = ".*",
    router: str = "soft",
    router_options: Mapping[str, Any] | None = None,
    scope: str = "linear",
) -> Method:
    """`experts` by name, each of `rank` unless `ranks` says otherwise; any `router` with its options; `scope` linear, block or model."""
    if strangers := set(ranks or {}) - set(experts):
        raise ValueError(f"moe_lora: ranks for {sorted(strangers)}, but the experts are {list(experts)}")
    bank = tuple(Expert(name, (ranks or {}).get(name, rank), alpha) for name in experts)
    plan = LayerPlan(bank, targets=targets, router=router, router_options=router_options or {}, scope=scope)
    stage = Stage("joint", tasks, ("expert:*", "router", *HEADS))
    return Method("moe_lora", (Member("unified", tasks, (stage,), plan),))
