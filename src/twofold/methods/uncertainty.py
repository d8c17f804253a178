"""One LoRA for all tasks, whose losses are weighted by learned uncertainties (Kendall, Gal and Cipolla 2018, arXiv 1705.07115).

Both losses are cross-entropies, so the objective is their form for those: Σ exp(−s_i) L_i + s_i / 2 with s = log σ², from s = 0, which
is the plain sum. The paper learns s with the network's optimiser; here it has an Adam of its own, with its own rate.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from twofold.core.inject import Expert, LayerPlan
from twofold.methods import HEADS, Member, Method, Stage
from twofold.methods._task_weights import TaskWeights


class Uncertainty(TaskWeights):
    """`score` is s."""

    def factors(self, loss_K: Tensor) -> Tensor:
        """exp(−s_i); then s descends along its own gradient, ½ − exp(−s_i) L_i."""
        factor_K = self.tensors["score"].neg().exp()
        self.descend(0.5 - factor_K * loss_K)
        return factor_K


def build(*, tasks: tuple[str, ...], rank: int = 24, alpha: float | None = None, targets: str = ".*", rate: float = 0.025) -> Method:
    """`rank` of the LoRA; `rate` of the uncertainties' Adam."""
    plan = LayerPlan((Expert("shared", rank, alpha),), targets=targets)
    stage = Stage("joint", tasks, ("expert:*", *HEADS), companion=partial(Uncertainty, rate=rate))
    return Method("uncertainty", (Member("unified", tasks, (stage,), plan),))
