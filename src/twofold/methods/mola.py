"""MoLA: more experts in some layers than in others (Gao et al. 2024, arXiv 2402.08562; NAACL Findings 2025).

`experts` is how many there are in each equal part of the depth, first to last, as the paper writes its shapes: (2, 2, 4, 4) is its
inverted triangle ▽, (4, 4, 2, 2) the triangle △, (4, 2, 2, 4) the hourglass ▷◁, (3, 3, 3, 3) the rectangle. The first preprint found
▽ best and the published version the middle, so neither is built in. As there: a linear router in every linear, the 2 best of each token,
and a Switch balance loss of 1e-3 summed over layers.

What differs: the balance compares with what all tasks routed in the step before, each task counting the same (a batch of one task would
punish its specialists, and the sum over tasks is not known before the last of them has run); weights sum to k instead of 1, so that two
experts start at the scale of one LoRA; no dropout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from twofold import losses
from twofold.core.inject import Expert, LayerPlan
from twofold.core.routing import Routing
from twofold.methods import HEADS, Member, Method, Stage, Total
from twofold.methods._routed import Routed


class Balance(Routed):
    """`tensors`: `share` (F,), how large a part of the choices each expert of each layer got in the last step."""

    def __init__(self, stage: Stage, model: nn.Module, steps: int, total: Total, *, weight: float) -> None:
        super().__init__(stage, model, steps, total)
        self.weight = weight
        self.tensors["share"] = self.zeros()
        for slot in self.slots.values():
            self.tensors["share"][slot] = 1 / (slot.stop - slot.start)

    def loss(self, routings: dict[str, Routing]) -> Tensor:
        """The Switch balance of every layer, with the shares of the step before."""
        parts = []
        for name, routing in routings.items():
            assert routing.score is not None
            probability_E = routing.score.softmax(-1).flatten(0, -2).mean(0)
            parts.append(losses.switch_balance(self.tensors["share"][self.slots[name]], probability_E))
        return self.weight * torch.stack(parts).sum()

    def after_step(self, done: int, again: Callable[[], Mapping[str, float]]) -> None:  # noqa: ARG002
        """Keeps this step's shares for the next."""
        share_F = self.shares()
        for slot in self.slots.values():
            self.tensors["share"][slot] = share_F[slot] / share_F[slot].sum()


def build(
    *,
    tasks: tuple[str, ...],
    experts: tuple[int, ...] = (2, 4, 4, 2),
    rank: int = 8,
    alpha: float | None = None,
    targets: str = ".*",
    k: int = 2,
    balance: float = 1e-3,
) -> Method:
    """`experts` in each part of the depth, each of `rank`; `k` count; `balance`: weight of that loss (0: none).

    Raises ValueError for a part with fewer than `k` experts, where there would be nothing to choose.
    """
    if not experts or min(experts) < k:
        raise ValueError(f"mola: experts {list(experts)} by depth; give at least k = {k} to every part")
    bank = [Expert(f"e{i}", rank, alpha, depths=tuple(rank if i < n else 0 for n in experts)) for i in range(max(experts))]
    plan = LayerPlan(tuple(bank), targets=targets, router="topk", router_options={"k": k})
    stage = Stage("joint", tasks, ("expert:*", "router", *HEADS), companion=partial(Balance, weight=balance))
    return Method("mola", (Member("unified", tasks, (stage,), plan),))
