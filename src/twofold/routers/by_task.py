"""Hard routing by task: each task uses the experts that the plan lets it see, at full weight, and never computes the others."""

from __future__ import annotations

import torch
from torch import Tensor

from twofold.core.routing import Batch, Roster, Router


class ByTaskRouter(Router):
    """One for an expert that the task sees, zero for the others: one-hot for separate experts, shared + task for two."""

    def __init__(self, roster: Roster) -> None:
        super().__init__()
        self.roster = roster

    def forward(self, x: Tensor, z: Tensor, batch: Batch, experts: tuple[str, ...]) -> tuple[Tensor, str]:  # noqa: ARG002
        rows = torch.stack([self.constant(task, experts) for task in batch.tasks]).to(x.device)
        return rows, "task" if len(batch.tasks) == 1 else "sequence"

    def constant(self, task: str, experts: tuple[str, ...]) -> Tensor:
        return torch.tensor([float(name in self.roster.sees[task]) for name in experts])


def build(*, roster: Roster) -> ByTaskRouter:
    """No options: the plan's `sees` says which experts a task uses. Raises ValueError where every task sees every expert."""
    if len(roster.experts) > 1 and all(set(names) == set(roster.experts) for names in roster.sees.values()):
        raise ValueError("by_task: the plan's `sees` must give at least one task fewer than all experts")
    return ByTaskRouter(roster)
