"""LoRAMoE: experts in groups by kind of task, balanced inside a group and not across (Dou et al. 2024, arXiv 2312.09979).

A linear router in every linear, with a softmax per token. To the losses is added the squared coefficient of variation of each expert's
importance in the pass (the sum of its weights), multiplied by 1 − δ for experts of the pass's own task and by 1 + δ for the others: it
is least where the own group has (1 + δ) / (1 − δ) times the weight of another and is balanced in itself.

What differs: the paper has two kinds, knowledge and the rest, and samples of both in a batch, of which it takes each sample's importance;
here every task has a group, and a pass is of one task. Its formula has 1 + δ on the group that its code then uses less; we name the
group by what the loss does. Weights sum to the number of experts instead of 1, so that the mixture starts at the scale of one LoRA.
The paper puts experts beside the feed-forward network only (`targets`).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from twofold import losses
from twofold.core.inject import Expert, LayerPlan
from twofold.core.routing import Routing
from twofold.methods import HEADS, Member, Method, Stage


def localised_balance(routings: dict[str, Routing], groups: tuple[str, ...], delta: float, weight: float) -> Tensor:
    """`weight` times the sum over layers; `groups`: each expert's task."""
    parts = []
    for routing in routings.values():
        importance_E = routing.weight.flatten(0, -2).mean(0)
        factors = [1 - delta if group in routing.tasks else 1 + delta for group in groups]
        parts.append(losses.squared_variation(importance_E * torch.tensor(factors, device=importance_E.device)))
    return weight * torch.stack(parts).sum()


def build(
    *,
    tasks: tuple[str, ...],
    group: int = 3,
    rank: int = 4,
    alpha: float | None = None,
    targets: str = ".*",
    delta: float = 0.1,
    balance: float = 0.1,
) -> Method:
    """`group` experts of `rank` for each task (2 × 3 × 4 = 24); `delta` in [0, 1): how much a group is preferred; `balance`: the weight."""
    if not 0 <= delta < 1:
        raise ValueError(f"loramoe: delta = {delta}; use 0 to below 1")
    groups = tuple(task for task in tasks for _ in range(group))
    bank = tuple(Expert(f"e{i}", rank, alpha) for i in range(len(groups)))
    plan = LayerPlan(bank, targets=targets, router="soft", router_options={"level": "token", "task_input": False})
    auxiliary = partial(localised_balance, groups=groups, delta=delta, weight=balance)
    stage = Stage("joint", tasks, ("expert:*", "router", *HEADS), auxiliary=auxiliary)
    return Method("loramoe", (Member("unified", tasks, (stage,), plan),))
