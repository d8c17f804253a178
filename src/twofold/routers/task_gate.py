"""Learned constants per task (as MOELoRA and MTL-LoRA learn them): a soft mixture that does not look at the input, so it folds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from twofold.core.routing import Batch, Roster, Router, generator
from twofold.routers import _scored as scoring


class TaskGateRouter(Router):
    """One learned score per task and expert that it sees; weights by softmax or sigmoid over those experts."""

    def __init__(self, roster: Roster, activate: scoring.Activate, std: float, seed: int, key: str) -> None:
        super().__init__()
        self.roster, self.activate = roster, activate
        pairs = [f"{task}>{name}" for task, names in roster.sees.items() for name in names]
        self.score = nn.ParameterDict({pair: torch.randn(1, generator=generator(seed, key, pair)) * std for pair in pairs})

    def forward(self, x: Tensor, z: Tensor, batch: Batch, experts: tuple[str, ...]) -> tuple[Tensor, str]:  # noqa: ARG002
        rows = torch.stack([self.constant(task, experts).to(x.device) for task in batch.tasks])
        return rows, "task" if len(batch.tasks) == 1 else "sequence"

    def constant(self, task: str, experts: tuple[str, ...]) -> Tensor:
        """(E,) weights, zero where the task does not see the expert."""
        at = [i for i, name in enumerate(experts) if name in self.roster.sees[task]]
        if not at:
            return torch.zeros(len(experts))
        weight = self.activate(torch.cat([self.score[f"{task}>{experts[i]}"] for i in at]), None)
        return weight.new_zeros(len(experts)).index_add(0, torch.tensor(at, device=weight.device), weight)


def build(
    *,
    roster: Roster,
    seed: int,
    key: str,
    activation: str = "softmax",
    temperature: float = 1.0,
    total: float | None = None,
    std: float = 0.0,
) -> TaskGateRouter:
    """`activation` softmax or sigmoid (normalised), `temperature`, `total`: what a task's weights sum to (default: their number);
    `std` of the scores' start, above 0 where experts would otherwise start, and stay, identical."""
    return TaskGateRouter(roster, scoring.activation(activation, temperature, total), std, seed, key)
