"""The k best of sigmoid scores, balanced without a loss by a shift of the choice (as SMoRA routes ranks, arXiv 2501.15103).

The shift is a buffer that counts for which experts are chosen and not for how much. Whoever trains the router moves it
(`methods/smora.py`); here it is only read, so that no text's weights depend on other texts, nor evaluation on its order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twofold.core.routing import Batch, Decision, Roster, Router
from twofold.routers import _scored as scoring


class BalancedTopKRouter(Router):
    """The weights of the chosen are their sigmoids, made to sum to their number: equal ones count one each."""

    shift_E: Tensor
    """In the order of the roster."""

    def __init__(self, scored: scoring.ScoredRouter, k: int) -> None:
        super().__init__()
        self.scored, self.k = scored, k
        self.register_buffer("shift_E", torch.zeros(len(scored.roster.experts)))

    def forward(self, x: Tensor, z: Tensor, batch: Batch, experts: tuple[str, ...]) -> Decision:  # noqa: ARG002
        roster, level = self.scored.roster, self.scored.level
        score = self.scored.score(x, batch, experts)
        gate = score.sigmoid()
        ranked = gate.detach() + self.shift_E[[roster.experts.index(name) for name in experts]]
        seen = roster.mask(batch, experts, level)
        if seen is not None:
            ranked = ranked.masked_fill(~seen, float("-inf"))
        best = ranked.topk(min(self.k, len(experts)), dim=-1).indices
        kept = torch.zeros_like(gate, dtype=torch.bool).scatter(-1, best, 1) & ranked.isfinite()
        chosen = gate.clamp_min(torch.finfo(gate.dtype).tiny).masked_fill(~kept, 0.0)
        return Decision(chosen / chosen.sum(-1, keepdim=True) * kept.sum(-1, keepdim=True), level, score)


def build(
    *, d_in: int, roster: Roster, seed: int, key: str, k: int = 8, level: str = "token", task_input: bool = False, std: float = 0.02
) -> BalancedTopKRouter:
    """`k` experts per sequence or token (all, where there are fewer); the rest as for `soft`."""
    if k < 1:
        raise ValueError(f"balanced_topk: k = {k}; use 1 or more")
    unused = scoring.activation("sigmoid", 1.0, None)  # it is scored only
    scored = scoring.ScoredRouter(d_in, roster, unused, hidden=0, level=level, task_input=task_input, std=std, seed=seed, key=key)
    return BalancedTopKRouter(scored, k)
