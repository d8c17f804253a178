"""Soft scores of which only the k largest count, renormalised (as MoLA and Mixtral route; arXiv 2402.08562)."""

from __future__ import annotations

import torch
from torch import Tensor

from twofold.core.routing import Batch, Decision, Roster, Router
from twofold.routers import _scored as scoring


class TopKRouter(Router):
    """The k best experts of each sequence or token, weighted by a softmax over those k; no capacity, so no text moves another's choice."""

    def __init__(self, scored: scoring.ScoredRouter, k: int) -> None:
        super().__init__()
        self.scored, self.k = scored, k

    def forward(self, x: Tensor, z: Tensor, batch: Batch, experts: tuple[str, ...]) -> Decision:  # noqa: ARG002
        score = self.scored.score(x, batch, experts)
        seen = self.scored.roster.mask(batch, experts, self.scored.level)
        ranked = score if seen is None else score.masked_fill(~seen, float("-inf"))
        best = ranked.topk(min(self.k, len(experts)), dim=-1).indices
        kept = torch.zeros_like(score, dtype=torch.bool).scatter(-1, best, 1)
        return Decision(self.scored.activate(score, kept if seen is None else kept & seen), self.scored.level, score)


def build(
    *,
    d_in: int,
    roster: Roster,
    seed: int,
    key: str,
    k: int = 2,
    hidden: int = 0,
    level: str = "token",
    activation: str = "softmax",
    temperature: float = 1.0,
    total: float | None = None,
    task_input: bool = False,
    std: float = 0.02,
) -> TopKRouter:
    """`k` experts per sequence or token; `total`: what their weights sum to (default: how many count); the rest as for `soft`.

    With k = 1 the one weight is always `total`: the choice is made by the scores as they start, which get no gradient.
    """
    if not 1 <= k <= len(roster.experts):
        raise ValueError(f"topk: k = {k} of {len(roster.experts)} experts; use 1 to {len(roster.experts)}")
    activate = scoring.activation(activation, temperature, total)
    scored = scoring.ScoredRouter(d_in, roster, activate, hidden=hidden, level=level, task_input=task_input, std=std, seed=seed, key=key)
    return TopKRouter(scored, k)
