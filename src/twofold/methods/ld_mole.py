"""LD-MoLE: how many experts a token uses is learned, and differentiable (arXiv 2509.25684).

Scores and a sparsity of the layer's input go into sparsegen (`routers/sparsegen.py`). A hinge keeps at most `at_most` experts: their
number is larger exactly where k · s_(k+1) + 1 exceeds the sum of the k largest scores. What differs: the network for the sparsity is
one per linear and small, where the paper shares one of 64 units over all layers; the hinge is taken on s = u / (1 − λ), which is the
paper's bound on λ divided by 1 − λ, and moves u too; its weight is ours (the authors' settings leave it 0); weights sum to the number of
experts instead of 1, so that the mixture starts at the scale of one LoRA.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from twofold.core.inject import Expert, LayerPlan
from twofold.core.routing import Routing
from twofold.methods import HEADS, Member, Method, Stage


def hinge(routings: dict[str, Routing], at_most: int, weight: float) -> Tensor:
    """`weight` times the mean over tokens and layers of how far more than `at_most` experts are from being too many."""
    parts = []
    for routing in routings.values():
        assert routing.score is not None
        top = routing.score.topk(at_most + 1, dim=-1).values
        parts.append((1 + at_most * top[..., -1] - top[..., :-1].sum(-1)).relu().mean())
    return weight * torch.stack(parts).mean()


def build(
    *,
    tasks: tuple[str, ...],
    experts: int = 8,
    rank: int = 3,
    alpha: float | None = None,
    targets: str = ".*",
    at_most: int = 2,
    sparsity: float = 1e-2,
) -> Method:
    """`experts` of `rank` (8 × 3 = 24); the hinge against more than `at_most` of them has the weight `sparsity`."""
    if not 1 <= at_most < experts:
        raise ValueError(f"ld_mole: at_most = {at_most} of {experts} experts; use 1 to {experts - 1}")
    bank = tuple(Expert(f"e{i}", rank, alpha) for i in range(experts))
    plan = LayerPlan(bank, targets=targets, router="sparsegen")
    auxiliary = partial(hinge, at_most=at_most, weight=sparsity) if sparsity else None
    stage = Stage("joint", tasks, ("expert:*", "router", *HEADS), auxiliary=auxiliary)
    return Method("ld_mole", (Member("unified", tasks, (stage,), plan),))
