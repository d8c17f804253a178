"""Every seen expert counts the same: one expert with it is plain LoRA."""

from __future__ import annotations

import torch
from torch import Tensor

from twofold.core.routing import Batch, Roster, Router


class UniformRouter(Router):
    """Equal weights that sum to `total` over the experts a task sees (None: one each)."""

    def __init__(self, roster: Roster, total: float | None) -> None:
        super().__init__()
        self.roster, self.total = roster, total

    def forward(self, x: Tensor, z: Tensor, batch: Batch, experts: tuple[str, ...]) -> tuple[Tensor, str]:  # noqa: ARG002
        rows = torch.stack([self.constant(task, experts) for task in batch.tasks]).to(x.device)
        return rows, "task" if len(batch.tasks) == 1 else "sequence"

    def constant(self, task: str, experts: tuple[str, ...]) -> Tensor:
        seen = self.roster.sees[task]
        share = 1.0 if self.total is None else self.total / max(len(seen), 1)
        return torch.tensor([share if name in seen else 0.0 for name in experts])


def build(*, roster: Roster, total: float | None = None) -> UniformRouter:
    """`total`: what the weights sum to (default: one for each expert that the task sees)."""
    return UniformRouter(roster, total)
