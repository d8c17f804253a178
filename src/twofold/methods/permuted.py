"""A control: ours, and at test (in every evaluation) each input is given the routing weights of another input of its task.

It is trained as `moe_lora`. What it loses against it is what the routers read from the input beyond the task. Training under a
permutation is not offered: a fixed one is a routing by hash, which a model can learn to use (Roller et al. 2021, arXiv 2106.04426), and one
that changes makes a text's vector depend on its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from twofold.core.inject import Expert, LayerPlan, mixtures
from twofold.core.routing import Routing
from twofold.methods import HEADS, Companion, Member, Method, Stage, Total
from twofold.tasks import RoutingLoss


class Donors(Companion):
    """Keeps the newest weights of each task in the routers' buffers. Of several processes each keeps its own; the main one's are saved."""

    def __init__(self, stage: Stage, model: nn.Module, steps: int, total: Total) -> None:
        super().__init__(stage, model, steps, total)
        self._rows: dict[tuple[str, str], list[Tensor]] = {}

    def auxiliary(self, task: str) -> RoutingLoss:
        """Takes note of the weights of every text; the loss is none."""

        def noted(routings: dict[str, Routing]) -> Tensor:
            for name, routing in routings.items():
                self._rows.setdefault((name, task), []).append(routing.weight.detach())
            return torch.zeros((), device=next(self.model.parameters()).device)

        return noted

    def after_step(self, done: int, again: Callable[[], Mapping[str, float]]) -> None:  # noqa: ARG002
        """The newest rows push out the oldest, in the same order in every layer."""
        for layer in mixtures(self.model):
            kept_KNE = layer.router.get_buffer("donor_KNE")
            for kept_NE, task in zip(kept_KNE, layer.roster.sees, strict=True):
                rows = self._rows.pop((layer.layer, task), [])
                kept_NE.copy_(torch.cat([*rows, kept_NE])[: len(kept_NE)])


def build(
    *,
    tasks: tuple[str, ...],
    experts: tuple[str, ...] = ("embedding", "reranking", "shared"),
    rank: int = 8,
    alpha: float | None = None,
    targets: str = ".*",
    donors: int = 64,
) -> Method:
    """`experts` by name, each of `rank`; `donors`: how many inputs' weights are kept of each task."""
    bank = tuple(Expert(name, rank, alpha) for name in experts)
    plan = LayerPlan(bank, targets=targets, router="permuted", router_options={"donors": donors})
    stage = Stage("joint", tasks, ("expert:*", "router", *HEADS), companion=Donors)
    return Method("permuted", (Member("unified", tasks, (stage,), plan),))
