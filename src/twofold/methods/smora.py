"""SMoRA: every rank of one LoRA is an expert, and each token uses the k best (Zhao et al. 2025, arXiv 2501.15103).

Ranks are experts of rank one here: stacked, they are the one LoRA of the paper. As there: sigmoid scores of the layer's input,
weights of the chosen that sum to k, alpha / k as scale (so a token has the scale of a LoRA of k ranks), and balance without a loss: after
every step each rank's shift moves by a constant towards the mean of the counts. What differs: the shift decides the choice only (in the
authors' code it is in the weight too, as the rule that it comes from does not have it, arXiv 2408.15664); it moves once per step, by
the counts of all tasks, each task counting the same; its speed is 1e-3 as in that rule, since 1e-5 does nothing in some hundred steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn

from twofold.core.inject import Expert, LayerPlan, mixtures
from twofold.methods import HEADS, Member, Method, Stage, Total
from twofold.methods._routed import Routed


class SignBias(Routed):
    """The memory is the routers' own buffer."""

    def __init__(self, stage: Stage, model: nn.Module, steps: int, total: Total, *, speed: float) -> None:
        super().__init__(stage, model, steps, total)
        self.speed = speed

    def after_step(self, done: int, again: Callable[[], Mapping[str, float]]) -> None:  # noqa: ARG002
        """shift += speed · sign(mean share − share)."""
        share_F = self.shares()
        for layer in mixtures(self.model):
            share_E = share_F[self.slots[layer.layer]]
            layer.router.get_buffer("shift_E").add_(torch.sign(share_E.mean() - share_E), alpha=self.speed)


def build(
    *,
    tasks: tuple[str, ...],
    rank: int = 24,
    active: int = 8,
    partition: int = 1,
    alpha: float = 16.0,
    targets: str = ".*",
    speed: float = 1e-3,
) -> Method:
    """`rank` ranks in groups of `partition`, of which `active` ranks count for a token; scale `alpha` / `active`; `speed` of the balance.

    Raises ValueError where groups do not fit.
    """
    if rank % partition or active % partition or not 0 < active <= rank:
        raise ValueError(f"smora: {active} of {rank} ranks in groups of {partition}; use multiples of the group, and at most all")
    groups = rank // partition
    width = len(str(groups - 1))
    bank = tuple(Expert(f"rank-{i:0{width}d}", partition, alpha=alpha / active * partition) for i in range(groups))
    plan = LayerPlan(bank, targets=targets, router="balanced_topk", router_options={"k": active // partition})
    stage = Stage("joint", tasks, ("expert:*", "router", *HEADS), companion=partial(SignBias, speed=speed))
    return Method("smora", (Member("unified", tasks, (stage,), plan),))
