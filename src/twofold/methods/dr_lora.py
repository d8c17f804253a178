"""DR-LoRA-style: the experts' ranks grow where they are needed, under a budget (arXiv 2601.04823).

The paper tunes a pre-trained mixture-of-experts model, whose own router says how often an expert is used. A dense backbone has none,
so here the experts are ours, of `start` ranks each, mixed by a soft router whose mean weight is the frequency. Saliency is
frequency · importance / (ranks + 1)^`penalty`; the importance of an expert is the mean over its ranks of Σ |θ · ∂L/∂θ|, and both are
moving averages. In `rounds` rounds between `first` and `last` of the stage, ranks go one by one to the most salient expert of each
layer, until every layer has `target` ranks for each expert on average: exactly. The form of the saliency, its decay and the
rounds are ours; the paper's were not at hand. What is stored, and what a count of parameters says, is `most` ranks of each expert.
A new rank starts with a zero column of B (see `banks/growing.py`), so nothing jumps; as Adam has counted steps without it, its first
update is up to three times as large as another parameter's first one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from twofold.banks.growing import GrowingBank
from twofold.core.inject import Expert, LayerPlan, mixtures
from twofold.core.routing import Routing
from twofold.methods import HEADS, Gradients, Member, Method, Stage, Total
from twofold.methods._routed import Routed


@dataclass(frozen=True)
class Growth:
    """`start` and `target` ranks of an expert (of the latter on average), and when they grow; see `build`."""

    start: int
    target: int
    rounds: int
    first: float
    last: float
    decay: float
    penalty: float

    def ranks(self, experts: int, done: float) -> int:
        """What a layer's experts have in all when this part of the stage is done."""
        share = min(max((done - self.first) / (self.last - self.first), 0.0), 1.0)
        return experts * self.start + round(math.floor(share * self.rounds + 1e-9) / self.rounds * experts * (self.target - self.start))


class Grow(Routed):
    """`tensors`: `frequency` and `importance` (F,), moving averages. The ranks are a buffer of the banks."""

    combines = True

    def __init__(self, stage: Stage, model: nn.Module, steps: int, total: Total, *, growth: Growth) -> None:
        super().__init__(stage, model, steps, total)
        self.growth = growth
        self.tensors |= {"frequency": self.zeros(), "importance": self.zeros()}

    def measure(self, routing: Routing) -> Tensor:
        """An expert's weight."""
        return routing.weight.float()

    def combine(self, gradients: Mapping[str, Gradients], losses: Mapping[str, float]) -> dict[str, Tensor]:  # noqa: ARG002
        """The plain sum, from which the importance of the ranks that count is taken."""
        total: dict[str, Tensor] = {}
        for each in gradients.values():
            total |= {name: total[name] + gradient if name in total else gradient for name, gradient in each.items()}
        now_F = self.zeros()
        for layer, bank in self.banks():
            slot = self.slots[layer]
            for at, (name, active) in enumerate(zip(bank.ranks, bank.active_E.tolist(), strict=True), slot.start):
                pairs = ((bank.a[name], f"{layer}.bank.a.{name}"), (bank.b[name], f"{layer}.bank.b.{name}"))
                now_F[at] = sum((theta.detach() * total[key]).abs().sum() for theta, key in pairs if key in total) / active
        self.tensors["importance"].lerp_(now_F, 1 - self.growth.decay)
        return total

    def after_step(self, done: int, again: Callable[[], Mapping[str, float]]) -> None:  # noqa: ARG002
        """Gives every layer the ranks that are due."""
        self.tensors["frequency"].lerp_(self.shares(), 1 - self.growth.decay)
        need_F = self.tensors["frequency"] * self.tensors["importance"]
        for layer, bank in self.banks():
            due = self.growth.ranks(len(bank.ranks), done / self.steps)
            bank.active_E.copy_(
                granted(bank.active_E, torch.tensor(list(bank.ranks.values())), need_F[self.slots[layer]], due, self.growth.penalty)
            )

    def banks(self) -> list[tuple[str, GrowingBank]]:
        """Layer and bank."""
        return [(layer.layer, layer.bank) for layer in mixtures(self.model) if isinstance(layer.bank, GrowingBank)]


def granted(active_E: Tensor, most_E: Tensor, need_E: Tensor, due: int, penalty: float) -> Tensor:
    """The ranks when there are `due` in all: one by one to whom need / (ranks + 1)^penalty is largest and who has fewer than `most_E`."""
    grown_E = active_E.clone()
    while int(grown_E.sum()) < due:
        saliency_E = need_E / (grown_E + 1).to(need_E.dtype) ** penalty
        grown_E[saliency_E.masked_fill(grown_E >= most_E.to(grown_E.device), -1.0).argmax()] += 1
    return grown_E


def build(
    *,
    tasks: tuple[str, ...],
    experts: tuple[str, ...] = ("embedding", "reranking", "shared"),
    start: int = 4,
    target: int = 8,
    most: int = 16,
    targets: str = ".*",
    rounds: int = 4,
    first: float = 0.1,
    last: float = 0.5,
    decay: float = 0.85,
    penalty: float = 1.0,
) -> Method:
    """`start`, `target` (on average) and `most` ranks of an expert; growth in `rounds` between the parts `first` and `last` of the stage.

    Raises ValueError where the budget cannot be met.
    """
    if not (1 <= start <= target <= most and rounds >= 1 and 0 <= first < last <= 1):
        raise ValueError(f"dr_lora: ranks {start} → {target} ≤ {most}, {rounds} rounds from {first} to {last} of the stage do not fit")
    bank = tuple(Expert(name, most) for name in experts)
    plan = LayerPlan(bank, targets=targets, bank="growing", bank_options={"start": start}, router="soft")
    growth = Growth(start, target, rounds, first, last, decay, penalty)
    stage = Stage("joint", tasks, ("expert:*", "router", *HEADS), companion=partial(Grow, growth=growth))
    return Method("dr_lora", (Member("unified", tasks, (stage,), plan),))
