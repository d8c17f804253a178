"""One LoRA for all tasks, whose losses are weighted so that all fall at about the same pace (FAMO, Liu et al. 2023, arXiv 2306.03792).

With z = softmax(w), the gradient of Σ z_i log(L_i − m) is followed, scaled so that equal weights give the plain sum of the losses (the
paper scales it to a mean; under AdamW the size of a gradient matters only for clipping). After the step, w descends along the tasks'
log improvement on the same batch at the new weights, which costs a further forward pass. Losses are cross-entropies: m = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from twofold.core.inject import Expert, LayerPlan
from twofold.methods import HEADS, Member, Method, Stage
from twofold.methods._task_weights import TaskWeights

FLOOR = 1e-8
"""Keeps logarithms and quotients finite where a loss reaches 0."""


class Famo(TaskWeights):
    """`score` is the paper's w."""

    before_K: Tensor

    def factors(self, loss_K: Tensor) -> Tensor:
        """z_i / L_i, made to sum to K; the losses are remembered for the end of the step."""
        self.before_K = loss_K
        pull_K = self.tensors["score"].softmax(0) / (loss_K + FLOOR)
        return pull_K / pull_K.sum() * len(loss_K)

    def after_step(self, done: int, again: Callable[[], Mapping[str, float]]) -> None:  # noqa: ARG002
        """w moves away from the tasks that gained most: along the softmax's derivative times the log improvement."""
        gain_K = (self.before_K + FLOOR).log() - (self.vector(again()) + FLOOR).log()
        z_K = self.tensors["score"].softmax(0)
        self.descend(z_K * (gain_K - torch.dot(z_K, gain_K)))


def build(
    *, tasks: tuple[str, ...], rank: int = 24, alpha: float | None = None, targets: str = ".*", rate: float = 0.025, decay: float = 0.01
) -> Method:
    """`rank` of the LoRA; `rate` and `decay` of the weights' own Adam, as in the authors' code."""
    plan = LayerPlan((Expert("shared", rank, alpha),), targets=targets)
    stage = Stage("joint", tasks, ("expert:*", *HEADS), companion=partial(Famo, rate=rate, decay=decay))
    return Method("famo", (Member("unified", tasks, (stage,), plan),))
