"""One LoRA for all tasks; gradients that disagree are projected before they are added (PCGrad, Yu et al. 2020, arXiv 2001.06782).

All parameters that several tasks share count as one vector, as in the paper. The others are met in the tasks' order and not in a random
one: for two tasks both are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from twofold.core.inject import Expert, LayerPlan
from twofold.methods import HEADS, Gradients, Member, Method, Stage


def combine(kept: Sequence[Gradients]) -> dict[str, Tensor]:
    """g_i − (g_i · g_j / ‖g_j‖²) g_j for every j with g_i · g_j < 0, one after another; then their sum. What one task has alone stays."""
    every = {name: gradient for each in kept for name, gradient in each.items()}
    shared = [name for name in every if sum(name in each for each in kept) > 1]
    if not shared:
        return every
    flat = [torch.cat([each.get(name, torch.zeros_like(every[name])).flatten() for name in shared]) for each in kept]
    summed = torch.stack([projected(own, [other for other in flat if other is not own]) for own in flat]).sum(0)
    pieces = summed.split([every[name].numel() for name in shared])
    return every | {name: piece.view_as(every[name]) for name, piece in zip(shared, pieces, strict=True)}


def projected(own: Tensor, others: Sequence[Tensor]) -> Tensor:
    """`own` without what points against each of `others`."""
    for other in others:
        if float(dot := own @ other) < 0:
            own = own - dot / other.square().sum() * other
    return own


def build(*, tasks: tuple[str, ...], rank: int = 24, alpha: float | None = None, targets: str = ".*") -> Method:
    """`rank` of the LoRA."""
    plan = LayerPlan((Expert("shared", rank, alpha),), targets=targets)
    stage = Stage("joint", tasks, ("expert:*", *HEADS), combine=combine)
    return Method("pcgrad", (Member("unified", tasks, (stage,), plan),))
