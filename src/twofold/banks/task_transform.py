"""A shared A, a small square matrix of each task, and shared B's (MTL-LoRA, Yang et al. 2024, arXiv 2410.09437).

An expert's name is TASK-UP (`rerank-1`): it is the path through the task's matrix Λ and the named B, B_up Λ_task A. So a task that
sees the experts of its own name mixes B's that it shares with the others. A name without a dash is a task with a B of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from twofold.banks._stacked import StackedBank, drawn_a


class TaskTransformBank(StackedBank):
    """Λ starts as the identity, A and B as in LoRA. Nothing here belongs to one expert alone."""

    def __init__(self, d_in: int, d_out: int, ranks: Mapping[str, int], scales: Mapping[str, float], layer: str, seed: int) -> None:
        super().__init__(ranks, scales)
        width = max(ranks.values())
        self.A = drawn_a(width, d_in, seed, layer, "A")
        self.transform, self.up_of = nn.ParameterDict(), nn.ParameterDict()
        for name, rank in ranks.items():
            task, up = parts(name)
            self.transform.setdefault(task, nn.Parameter(torch.eye(width)))
            known = self.up_of.setdefault(up, nn.Parameter(torch.zeros(d_out, rank)))
            if known.shape[1] != rank:
                raise ValueError(f"task_transform: experts that share the B {up!r} have ranks {known.shape[1]} and {rank}")

    def leaves(self, experts: tuple[str, ...]) -> list[nn.Parameter]:
        pairs = [parts(name) for name in experts]
        return [self.A, *(self.transform[task] for task, _ in pairs), *(self.up_of[up] for _, up in pairs)]

    def stack(self, experts: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        turned = {task: self.transform[task] @ self.A for task, _ in map(parts, experts)}
        rows = [turned[parts(name)[0]][: self.ranks[name]] for name in experts]
        return torch.cat(rows), torch.cat([self.up_of[parts(name)[1]] for name in experts], dim=1)


def parts(name: str) -> tuple[str, str]:
    """`rerank-1` → (`rerank`, `1`); `shared` → (`shared`, `shared`)."""
    task, _, up = name.rpartition("-")
    return task or name, up


build = TaskTransformBank
