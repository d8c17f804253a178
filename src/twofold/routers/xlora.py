"""Gates from a hidden state that was there before the experts (X-LoRA, Buehler and Buehler 2024, arXiv 2402.07148).

The paper runs the model twice: once without experts, for the last hidden state, from which a classifier makes the gates of the
second pass. Here there is one pass: the classifier reads what comes into block `after`, which no expert has touched, because
the blocks before it have weight 0 (so they have in the paper's first pass); with after = 0 it is the embedding. Each block
has rows of its own (the paper's layer-wise scalings, by block), and so needs scope = "block".
"""

from __future__ import annotations

import torch
from torch import Tensor

from twofold.core.inject import block_of
from twofold.core.routing import Batch, Roster, Router
from twofold.routers import _scored as scoring

HIDDEN = "xlora"
"""Where the first block that is routed leaves its input for the others."""


class XLoraRouter(Router):
    """A softmax over the experts for each token of the hidden state, by rows of the block."""

    def __init__(self, scored: scoring.ScoredRouter, early: bool) -> None:
        super().__init__()
        self.scored, self.early = scored, early

    def forward(self, x: Tensor, z: Tensor, batch: Batch, experts: tuple[str, ...]) -> tuple[Tensor, str]:
        if self.early:
            return torch.zeros(1, len(experts), device=x.device), "task"
        if HIDDEN not in batch.decided:
            batch.decided[HIDDEN] = x
        weight: tuple[Tensor, str] = self.scored(batch.decided[HIDDEN], z, batch, experts)
        return weight


def build(
    *,
    d_in: int,
    roster: Roster,
    seed: int,
    key: str,
    after: int = 0,
    hidden: int = 0,
    level: str = "token",
    temperature: float = 1.0,
    std: float = 0.02,
) -> XLoraRouter:
    """`after`: so many blocks have no experts, and the hidden state behind them decides for the rest; `hidden` units of the
    classifier's MLP (0: linear); `level` token or sequence. The weights sum to 1. Raises ValueError for another scope than block."""
    if block_of(f"{key}.x") != key:
        raise ValueError(f"xlora: decides once per block, and was asked for {key!r}: use scope 'block'")
    activate = scoring.activation("softmax", temperature, 1.0)
    scored = scoring.ScoredRouter(d_in, roster, activate, hidden=hidden, level=level, task_input=False, std=std, seed=seed, key=key)
    return XLoraRouter(scored, int(key.rpartition(".")[2]) < after)
