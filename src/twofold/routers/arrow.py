"""Routing without training: a token goes where an expert's main direction points (Arrow, Ostapenko et al. 2024, arXiv 2405.11157).

An expert's prototype is the first right singular vector of its update B_e A_e: the input that it changes most. A token's score
for it is |x · v_e|, either sign being the same direction; softmax over the k largest. As in PEFT, the input is not made unit
length. Prototypes are made of the experts as they are when the router is put over them, and are saved with it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from twofold.core.routing import Bank, Batch, Roster, Router
from twofold.routers import _scored as scoring


class ArrowRouter(Router):
    """One unit vector for each expert, and no parameters."""

    def __init__(self, roster: Roster, bank: Bank, d_in: int, k: int, temperature: float) -> None:
        super().__init__()
        self.roster, self.k, self.activate = roster, k, scoring.activation("softmax", temperature, 1.0)
        for name in roster.experts:
            self.register_buffer(f"prototype>{name}", prototype(bank, d_in, name))

    def forward(self, x: Tensor, z: Tensor, batch: Batch, experts: tuple[str, ...]) -> tuple[Tensor, str]:  # noqa: ARG002
        with torch.autocast(x.device.type, enabled=False):
            prototype_ED = torch.stack([self.get_buffer(f"prototype>{name}") for name in experts])
            score = F.linear(x.float(), prototype_ED).abs()
        seen = self.roster.mask(batch, experts, "token")
        ranked = score if seen is None else score.masked_fill(~seen, -1.0)
        best = ranked.topk(min(self.k, len(experts)), dim=-1).indices
        kept = torch.zeros_like(score, dtype=torch.bool).scatter(-1, best, 1)
        return self.activate(score, kept if seen is None else kept & seen), "token"


@torch.no_grad()
def prototype(bank: Bank, d_in: int, expert: str) -> Tensor:
    """(d_in,): the first right singular vector of the expert's update ΔW, whose rows lie in the span of A's: with A = (Q R)ᵀ it is
    Q times the first one of ΔW Q, which has only the rank's columns."""
    some = next(bank.parameters())
    a_Dr = bank.down(torch.eye(d_in, dtype=some.dtype, device=some.device), (expert,)).float()
    if not a_Dr.shape[1]:  # an expert that this layer does not have
        return a_Dr.new_zeros(d_in)
    q_Dr = torch.linalg.qr(a_Dr).Q
    small_Or = bank.delta(some.new_ones(1), (expert,)).float() @ q_Dr
    first_D: Tensor = q_Dr @ torch.linalg.eigh(small_Or.T @ small_Or).eigenvectors[:, -1]
    return first_D


def build(*, d_in: int, roster: Roster, bank: Bank, k: int = 3, temperature: float = 1.0) -> ArrowRouter:
    """`k` experts for each token (all, where there are no more), weighted by a softmax that sums to 1, at this temperature."""
    if k < 1:
        raise ValueError(f"arrow: k = {k}; use 1 or more")
    return ArrowRouter(roster, bank, d_in, k, temperature)
