"""Sparse weights whose number is learned: sparsegen, with a sparsity λ that the input decides (LD-MoLE, arXiv 2509.25684).

sparsegen (Laha et al. 2018, arXiv 1810.11975) is sparsemax of u / (1 − λ): for λ towards 1 one expert counts, for λ towards −∞ all
do, and in between it has a gradient everywhere, unlike a choice of the k best.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from twofold.core.routing import Batch, Decision, Roster, Router, generator
from twofold.routers import _scored as scoring

MARGIN = 0.01
"""λ stays this far below 1."""
START = -2.5
"""What f starts around, as in the authors' code: λ is about −1.6, so that many experts count at first."""


class SparsegenRouter(Router):
    """Scores u as `soft` makes them, and λ = log σ(f(x)) + 1 − `MARGIN` by a network f of one hidden layer; all in fp32.

    Weights sum to `total` over the experts that a task sees (None: to their number). What it gives as scores is u / (1 − λ).
    """

    def __init__(self, scored: scoring.ScoredRouter, d_in: int, hidden: int, total: float | None, seed: int, key: str) -> None:
        super().__init__()
        self.scored, self.total = scored, total
        draw = generator(seed, key, "sparsity")
        self.inner = nn.Parameter(torch.randn(hidden, d_in, generator=draw) * d_in**-0.5)
        self.outer = nn.Parameter(torch.randn(1, hidden, generator=draw) * hidden**-0.5)
        self.outer_bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, z: Tensor, batch: Batch, experts: tuple[str, ...]) -> Decision:  # noqa: ARG002
        level, roster = self.scored.level, self.scored.roster
        with torch.autocast(x.device.type, enabled=False):
            at = batch.pool(x.float()) if level == "sequence" else x.float()
            hidden = F.relu(F.linear(at, self.inner.float()))
            sparsity = F.logsigmoid(F.linear(hidden, self.outer.float(), self.outer_bias.float()) + START) + 1 - MARGIN
            score = self.scored.score(x, batch, experts) / (1 - sparsity)
            seen = roster.mask(batch, experts, level)
            weight = sparsemax(score if seen is None else score.masked_fill(~seen, float("-inf")))
            many = len(experts) if seen is None else seen.sum(-1, keepdim=True)
        return Decision(weight * (many if self.total is None else self.total), level, score)


def sparsemax(score: Tensor) -> Tensor:
    """The point of the probability simplex that is nearest to the scores (…, E) (Martins and Astudillo 2016, arXiv 1602.02068)."""
    ordered = score.sort(-1, descending=True).values
    sums = ordered.cumsum(-1)
    rank = torch.arange(1, score.shape[-1] + 1, device=score.device)
    size = (1 + rank * ordered > sums).sum(-1, keepdim=True)
    return (score - (sums.gather(-1, size - 1) - 1) / size).clamp_min(0.0)


def build(
    *,
    d_in: int,
    roster: Roster,
    seed: int,
    key: str,
    sparsity_hidden: int = 16,
    level: str = "token",
    total: float | None = None,
    task_input: bool = False,
    std: float = 0.02,
) -> SparsegenRouter:
    """`sparsity_hidden` units of the network for λ; `total`: what the weights sum to (default: the number seen); the rest as for `soft`."""
    unused = scoring.activation("softmax", 1.0, None)  # it is scored only
    scored = scoring.ScoredRouter(d_in, roster, unused, hidden=0, level=level, task_input=task_input, std=std, seed=seed, key=key)
    return SparsegenRouter(scored, d_in, sparsity_hidden, total, seed, key)
