"""One LoRA for all tasks, whose low-rank states shall be distributed alike in all of them (Align-LoRA, arXiv 2508.05078).

A symmetric KL divergence between the tasks' states A x, taken as Gaussians of independent features, is added to the losses. The paper
has all tasks in one batch; here each pass is of one task, so it is compared with the other tasks' states of the step before, which carry
no gradient. All target layers take part (the paper's: those of the feed-forward network); the mean over ranks and layers is taken.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from twofold import losses
from twofold.banks.lora import LoraBank
from twofold.core.inject import Expert, LayerPlan, mixtures
from twofold.core.routing import Routing
from twofold.methods import HEADS, Companion, Member, Method, Stage, Total
from twofold.tasks import RoutingLoss


class Alignment(Companion):
    """`tensors`: TASK.mean and TASK.square (F,), means over the last step's tokens, F = ranks of all layers; and whether there was one."""

    def __init__(self, stage: Stage, model: nn.Module, steps: int, total: Total, *, weight: float) -> None:
        super().__init__(stage, model, steps, total)
        self.weight = weight
        banks = [layer.bank for layer in mixtures(model)]
        size, device = sum(sum(bank.ranks.values()) for bank in banks if isinstance(bank, LoraBank)), next(model.parameters()).device
        self.tensors |= {f"{task}.{what}": torch.zeros(size, device=device) for task in stage.tasks for what in ("mean", "square")}
        self.tensors["known"] = torch.zeros((), device=device)
        self._sums = {task: torch.zeros(2 * size + 1, device=device) for task in stage.tasks}

    def auxiliary(self, task: str) -> RoutingLoss:
        """Compares the pass with the other tasks, and takes note of it."""

        def aligned(routings: dict[str, Routing]) -> Tensor:
            states = [routing.z[0].float() for routing in routings.values() if routing.z is not None]
            mean_F, square_F = torch.cat([z.mean(0) for z in states]), torch.cat([z.square().mean(0) for z in states])
            tokens = len(states[0])
            self._sums[task] += torch.cat([mean_F * tokens, square_F * tokens, mean_F.new_full((1,), tokens)]).detach()
            others = [other for other in self.stage.tasks if other != task]
            theirs = [(self.tensors[f"{other}.mean"], self.tensors[f"{other}.square"]) for other in others]
            parts = [divergence(mean_F, square_F, *each) for each in theirs]
            return self.weight * self.tensors["known"] * torch.stack(parts).mean() if parts else mean_F.sum() * 0

        return aligned

    def after_step(self, done: int, again: object) -> None:  # noqa: ARG002
        """What was noted is what the next step compares with."""
        for task, sums in self._sums.items():
            whole = self.total(sums)
            for what, part in zip(("mean", "square"), (whole[:-1] / whole[-1]).chunk(2), strict=True):
                self.tensors[f"{task}.{what}"].copy_(part)
            sums.zero_()
        self.tensors["known"].fill_(1)


def divergence(mean_F: Tensor, square_F: Tensor, other_F: Tensor, other_square_F: Tensor) -> Tensor:
    """The mean over features of the symmetric KL divergence of two Gaussians with these means and mean squares."""
    return losses.gaussian_kl(mean_F, square_F - mean_F.square(), other_F, other_square_F - other_F.square()).mean()


def build(*, tasks: tuple[str, ...], rank: int = 24, alpha: float | None = None, targets: str = ".*", weight: float = 0.01) -> Method:
    """`rank` of the LoRA; `weight` of the divergence."""
    plan = LayerPlan((Expert("shared", rank, alpha),), targets=targets)
    stage = Stage("joint", tasks, ("expert:*", *HEADS), companion=partial(Alignment, weight=weight))
    return Method("align_lora", (Member("unified", tasks, (stage,), plan),))
