"""Low-rank updates stored apart and applied as one stacked pair of matrices: what `lora` is made of, and banks like it.

Shapes: A_e (R_e, d_in), B_e (d_out, R_e), R = ΣR_e of the experts that the pass sees.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from twofold.core.kept import Kept
from twofold.core.product import linear
from twofold.core.routing import Bank, generator


def drawn_a(rank: int, d_in: int, seed: int, *names: str) -> nn.Parameter:
    """A start for A (rank, d_in) as in PEFT: Kaiming's uniform with a = √5."""
    bound = 1 / math.sqrt(d_in)
    return nn.Parameter(torch.empty(rank, d_in).uniform_(-bound, bound, generator=generator(seed, *names)))


class StackedBank(Bank):
    """An A and a B of its own for every expert, unless a bank says by `leaves` and `stack` that they come from elsewhere."""

    def __init__(self, ranks: Mapping[str, int], scales: Mapping[str, float]) -> None:
        super().__init__()
        self.ranks, self.scales = dict(ranks), dict(scales)
        self.a, self.b = nn.ParameterDict(), nn.ParameterDict()
        self._kept: Kept[tuple[Tensor, Tensor]] = Kept()
        self.register_load_state_dict_post_hook(self._kept.forget)  # type: ignore[no-untyped-call]

    def leaves(self, experts: tuple[str, ...]) -> list[nn.Parameter]:
        """The parameters that the experts' matrices are made of."""
        return [*(self.a[name] for name in experts), *(self.b[name] for name in experts)]

    def stack(self, experts: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """The experts' A (R, d_in) and B (d_out, R), side by side."""
        return torch.cat([self.a[name] for name in experts]), torch.cat([self.b[name] for name in experts], dim=1)

    def down(self, x: Tensor, experts: tuple[str, ...]) -> Tensor:
        a_RD, _ = self._stacked(experts, x.dtype)
        return linear(x, a_RD)

    def up(self, y: Tensor, z: Tensor, weight: Tensor, experts: tuple[str, ...]) -> Tensor:
        _, b_DR = self._stacked(experts, y.dtype)
        gated = (z * self.per_rank(weight, experts).to(z.dtype)).flatten(0, -2).to(y.dtype)
        with torch.autocast(y.device.type, enabled=False):  # in place: a second (T, d_out) output costs more than the product
            return y.addmm_(gated, b_DR.t())

    def delta(self, weight_E: Tensor, experts: tuple[str, ...]) -> Tensor:
        a_RD, b_DR = self._stacked(experts)
        return (b_DR.float() * self.per_rank(weight_E, experts)) @ a_RD.float()

    def per_rank(self, weight: Tensor, experts: tuple[str, ...]) -> Tensor:
        """Weights over experts (…, E) → factors over ranks (…, R): the weight of the rank's expert times its scale."""
        ranks, scales = tuple(self.ranks[name] for name in experts), tuple(self.scales[name] for name in experts)
        if len({*zip(ranks, scales, strict=True)}) == 1:  # a copy, which costs half of a lookup
            return (weight * scales[0]).repeat_interleave(ranks[0], dim=-1)
        expert_R, scale_R = slices(ranks, scales, weight.device)
        return weight.index_select(-1, expert_R) * scale_R

    def _stacked(self, experts: tuple[str, ...], dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """The experts' A and B side by side, cast to `dtype`: made anew while they train, kept while nothing changes them."""

        def make() -> tuple[Tensor, Tensor]:
            a_RD, b_DR = self.stack(experts)
            return a_RD.to(dtype or a_RD.dtype), b_DR.to(dtype or b_DR.dtype)

        return self._kept.get((experts, dtype), lambda: self.leaves(experts), self.training, make)


@functools.cache
def slices(ranks: tuple[int, ...], scales: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """The expert and the scale of each of the R ranks; kept, so not as inference tensors, which no backward may save."""
    with torch.inference_mode(False):
        expert_R = torch.tensor([i for i, rank in enumerate(ranks) for _ in range(rank)], dtype=torch.long, device=device)
        return expert_R, torch.tensor(scales, device=device)[expert_R]
