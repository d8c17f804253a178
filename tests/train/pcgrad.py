"""A sketch, to see that the seam holds: gradients that disagree are projected before they are added (Yu et al. 2020, arXiv 2001.06782)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from twofold.core.inject import Expert, LayerPlan
from twofold.methods import HEADS, Gradients, Member, Method, Stage


def combine(kept: Sequence[Gradients]) -> dict[str, Tensor]:
    shared = [name for name in kept[0] if all(name in each for each in kept)]
    flat = [torch.cat([each[name].flatten() for name in shared]) for each in kept]
    total = torch.zeros_like(flat[0])
    for i, own in enumerate(flat):
        for j, other in enumerate(flat):
            if i != j and float(own @ other) < 0:
                own = own - (own @ other) / other.square().sum() * other
        total += own
    pieces = total.split([kept[0][name].numel() for name in shared])
    alone = {name: gradient for each in kept for name, gradient in each.items() if name not in shared}
    return {**alone, **{name: piece.view_as(kept[0][name]) for name, piece in zip(shared, pieces, strict=True)}}


def build(*, tasks: tuple[str, ...], rank: int = 2) -> Method:
    plan = LayerPlan((Expert("shared", rank),))
    return Method("pcgrad", (Member("unified", tasks, (Stage("joint", tasks, ("expert:*", *HEADS), combine=combine),), plan),))
