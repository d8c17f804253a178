"""A gate on what the experts themselves give, with a learned temperature (MOLE, Wu et al. 2024, arXiv 2404.13628, equations 9 to 11).

The paper runs a whole block with each expert, and its gate reads those outputs flattened, which ties it to one length. Here the
gate reads the experts' low-rank states z_e = A_e x of the layer that decides (with scope = "block" the block's first), as their
mean over the text: an expert is frozen, so a linear score of its update B_e z_e is a linear score of z_e.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from twofold.core.routing import Bank, Batch, Roster, Router, generator
from twofold.routers import _scored as scoring


class MoleRouter(Router):
    """Softmax over all experts of normalised states times a gate, divided by the temperature: one decision for each text."""

    def __init__(self, roster: Roster, ranks: Mapping[str, int], masked: tuple[str, ...], std: float, seed: int, key: str) -> None:
        super().__init__()
        if strangers := sorted(set(masked) - set(roster.experts)):
            raise ValueError(f"mole: masked {strangers}; the experts are {list(roster.experts)}")
        self.roster, self.masked, self.activate = roster, masked, scoring.activation("softmax", 1.0, 1.0)
        shapes = {name: (len(roster.experts), rank) for name, rank in ranks.items()}
        draws = {name: torch.randn(shape, generator=generator(seed, key, name)) * std for name, shape in shapes.items()}
        self.gate = nn.ParameterDict(draws)
        self.root = sum(ranks.values()) ** 0.5  # features of about 1 each
        self.log_temperature = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, z: Tensor, batch: Batch, experts: tuple[str, ...]) -> tuple[Tensor, str]:
        rows, ranks = [self.roster.experts.index(name) for name in experts], [self.gate[name].shape[1] for name in experts]
        kept_SE = torch.tensor([[name not in self.masked for name in experts]], device=x.device)
        with torch.autocast(x.device.type, enabled=False):
            state_SR, seen_SE = batch.pool(z.float()), self.roster.mask(batch, experts, "sequence")
            if seen_SE is not None:  # another text's experts are computed for this one too, and must not show
                state_SR = state_SR * seen_SE.repeat_interleave(torch.tensor(ranks, device=x.device), dim=-1)
                kept_SE = kept_SE & seen_SE
            gate_ER = torch.cat([self.gate[name][rows] for name in experts], dim=1).float()
            score_SE = F.linear(F.normalize(state_SR, dim=-1) * self.root, gate_ER) / self.log_temperature.float().exp()
        return self.activate(score_SE, kept_SE.expand_as(score_SE)), "sequence"


def build(*, d_in: int, roster: Roster, seed: int, key: str, bank: Bank, masked: tuple[str, ...] = (), std: float = 0.02) -> MoleRouter:
    """`masked`: experts that count no longer, while the others keep their proportions, without further training; the
    gate still reads them. `std` of the gate's start. The weights of a text sum to 1."""
    ranks = {name: bank.down(next(bank.parameters()).new_zeros(1, d_in), (name,)).shape[-1] for name in roster.experts}
    return MoleRouter(roster, ranks, masked, std, seed, key)
