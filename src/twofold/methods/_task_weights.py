"""A companion with one learned number per task, from which the factors of the tasks' losses are made; it learns by Adam on its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from twofold.methods import Companion, Gradients, Stage, Total

BETAS, EPSILON = (0.9, 0.999), 1e-8


class TaskWeights(Companion, ABC):
    """`tensors`: the numbers `score` (K,) in the order of the stage's tasks, and Adam's state. The factors multiply the gradients."""

    combines = True

    def __init__(self, stage: Stage, model: nn.Module, steps: int, total: Total, *, rate: float, decay: float = 0.0) -> None:
        super().__init__(stage, model, steps, total)
        self.rate, self.decay = rate, decay
        count = len(stage.tasks)
        self.tensors |= {name: torch.zeros(count, dtype=torch.float64) for name in ("score", "mean", "square")}
        self.tensors["count"] = torch.zeros((), dtype=torch.float64)

    @abstractmethod
    def factors(self, loss_K: Tensor) -> Tensor:
        """(K,) what each task's loss is multiplied by, from the losses before the step."""

    def combine(self, gradients: Mapping[str, Gradients], losses: Mapping[str, float]) -> dict[str, Tensor]:
        """The sum of the tasks' gradients, each times its factor."""
        total: dict[str, Tensor] = {}
        for factor, task in zip(self.factors(self.vector(losses)).tolist(), self.stage.tasks, strict=True):
            for name, gradient in gradients[task].items():
                total[name] = total[name] + factor * gradient if name in total else factor * gradient
        return total

    def vector(self, losses: Mapping[str, float]) -> Tensor:
        """(K,)."""
        return torch.tensor([losses[task] for task in self.stage.tasks], dtype=torch.float64)

    def descend(self, gradient_K: Tensor) -> None:
        """One step of Adam (Kingma and Ba 2015, arXiv 1412.6980) on the scores, with its L2 decay."""
        score_K, mean_K, square_K, count = (self.tensors[name] for name in ("score", "mean", "square", "count"))
        gradient_K = gradient_K + self.decay * score_K
        count += 1
        mean_K.lerp_(gradient_K, 1 - BETAS[0])
        square_K.lerp_(gradient_K.square(), 1 - BETAS[1])
        mean_hat, square_hat = mean_K / (1 - BETAS[0] ** count), square_K / (1 - BETAS[1] ** count)
        score_K -= self.rate * mean_hat / (square_hat.sqrt() + EPSILON)
