"""Experts near the text, mixed by attention with a LoRA of its own (RAMoLE, Zhao et al. 2024, arXiv 2406.16989).

First the text chooses k experts by the cosine between its embedding and each expert's prototype, the mean embedding of what that
expert was trained on. Then every token of every layer mixes them: its query is A_r x, an expert's key is B_rᵀ of the update that
the expert gives, s B_e A_e x; softmax of their products over √r. (A_r, B_r) is the router's LoRA, whose size does not depend on
the number of experts, so it routes over experts that it has never met. The keys come from z = A x by the small matrix s B_rᵀ B,
and nothing of size T × E × d_out is ever made.

What differs: the paper's embedding is an instruction-tuned sentence encoder's, trained on tasks of its own; here it is the mean
of what comes into the first layer, which costs no further model and no second pass. The paper drops experts at random for each
sample; here the draw is for each step, so that a pass that is run again finds the same experts.
Shapes: as in `core.routing`; r rank of the router's LoRA, O features of the layer's output.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from twofold.core.routing import Bank, Batch, Roster, Router, generator
from twofold.routers import _scored as scoring

CANDIDATES = "ramole"
"""Where the first layer of a pass leaves its choice for the others."""


class RamoleRouter(Router):
    """Its bank is looked at and not owned: keys are made of the experts as they are."""

    def __init__(self, d_in: int, roster: Roster, bank: Bank, *, k: int, rank: int, seed: int, key: str) -> None:
        super().__init__()
        self.roster, self.k, self.width, self.seed = roster, k, d_in, seed
        self.activate = scoring.activation("softmax", 1.0, 1.0)
        self._bank = (bank,)  # in a tuple, or its parameters would be the router's, too
        some = next(bank.parameters())
        self.ranks = {name: bank.down(some.new_zeros(1, d_in), (name,)).shape[-1] for name in roster.experts}
        d_out = bank.delta(some.new_ones(1), roster.experts[:1]).shape[0]
        self.down = nn.Parameter(torch.randn(rank, d_in, generator=generator(seed, key, "down")) * d_in**-0.5)
        self.up = nn.Parameter(torch.zeros(d_out, rank))
        for name in roster.experts:
            self.register_buffer(f"prototype>{name}", torch.zeros(d_in))
            self.register_buffer(f"dropped>{name}", torch.zeros((), dtype=torch.bool))

    def forward(self, x: Tensor, z: Tensor, batch: Batch, experts: tuple[str, ...]) -> tuple[Tensor, str]:
        if CANDIDATES not in batch.decided:
            batch.decided[CANDIDATES] = self.choose(x, batch, experts)
        ranks = torch.tensor([self.ranks[name] for name in experts], device=z.device)
        expert_R = torch.arange(len(experts), device=z.device).repeat_interleave(ranks)
        with torch.autocast(x.device.type, enabled=False):
            key_Rr = self._updates(experts) @ self.up.float()
            product = z.float() * F.linear(F.linear(x.float(), self.down.float()), key_Rr)
            score = product.new_zeros(*z.shape[:-1], len(experts)).index_add(-1, expert_R, product) / len(self.down) ** 0.5
        return self.activate(score, batch.spread(batch.decided[CANDIDATES], "sequence").expand_as(score)), "token"

    @torch.no_grad()
    def choose(self, x: Tensor, batch: Batch, experts: tuple[str, ...]) -> Tensor:
        """(S, E): True for the k experts nearest to each text of those that its task sees. One without a prototype comes first.

        While training without those that this step drops, unless that would leave a text none.
        """
        prototype_ED = torch.stack([self.get_buffer(f"prototype>{name}") for name in experts])
        near_SE = F.normalize(batch.pool(x.float()), dim=-1) @ F.normalize(prototype_ED, dim=-1).T
        near_SE = near_SE.masked_fill(~prototype_ED.any(-1), 2.0)
        seen_SE = self.roster.mask(batch, experts, "sequence")
        if seen_SE is not None:
            near_SE = near_SE.masked_fill(~seen_SE, -2.0)
        best_SE = torch.zeros_like(near_SE, dtype=torch.bool).scatter(-1, near_SE.topk(min(self.k, len(experts))).indices, 1)
        best_SE &= near_SE > -2.0
        left_SE = best_SE & ~torch.stack([self.get_buffer(f"dropped>{name}") for name in experts])
        return torch.where(left_SE.any(-1, keepdim=True), left_SE, best_SE) if self.training else best_SE

    def meet(self, expert: str, prototype_D: Tensor) -> None:
        """From now on `expert` is known by this prototype."""
        self.get_buffer(f"prototype>{expert}").copy_(prototype_D)

    def drop(self, probability: float, step: int) -> None:
        """Draws the experts that training does without until the next draw: by the seed, the step and the expert alone."""
        for name in self.roster.experts:
            draw = torch.rand((), generator=generator(self.seed, "drop", str(step), name))
            self.get_buffer(f"dropped>{name}").fill_(bool(draw < probability))

    def _updates(self, experts: tuple[str, ...]) -> Tensor:
        """(R, O): what each rank of the experts adds to the output, their scales included."""
        unit_RR = torch.eye(sum(self.ranks[name] for name in experts), device=self.up.device)
        y_RO = unit_RR.new_zeros(len(unit_RR), len(self.up))
        return self._bank[0].up(y_RO, unit_RR, unit_RR.new_ones(1, len(experts)), experts)


def build(*, d_in: int, roster: Roster, seed: int, key: str, bank: Bank, k: int = 3, rank: int = 8) -> RamoleRouter:
    """`k` experts for each text (all, where there are no more); `rank` of the router's LoRA. A token's weights sum to 1."""
    if k < 1 or rank < 1:
        raise ValueError(f"ramole: k = {k} experts, rank {rank}; both are 1 or more")
    return RamoleRouter(d_in, roster, bank, k=k, rank=rank, seed=seed, key=key)
