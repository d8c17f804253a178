"""One A for all experts and a B for each (HydraLoRA, Tian et al. 2024, arXiv 2404.19245).

The experts differ by their B alone, and all B start at zero: only different weights make them different. A router that gives all
of them the same weight for ever leaves them identical for ever, so it must not start at zero.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from twofold.banks._stacked import StackedBank, drawn_a, states


class SharedDownBank(StackedBank):
    """`A` has as many rows as the largest expert has ranks; a smaller one uses the first of them."""

    def __init__(self, d_in: int, d_out: int, ranks: Mapping[str, int], scales: Mapping[str, float], layer: str, seed: int) -> None:
        super().__init__(ranks, scales)
        self.A = drawn_a(max(ranks.values()), d_in, seed, layer, "A")  # a capital: no expert can have this name
        for name, rank in ranks.items():
            self.b[name] = nn.Parameter(torch.zeros(d_out, rank))

    def leaves(self, experts: tuple[str, ...]) -> list[nn.Parameter]:
        return [self.A, *(self.b[name] for name in experts)]

    def stack(self, experts: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        return self.A[self._rows(experts)], torch.cat([self.b[name] for name in experts], dim=1)

    def down(self, x: Tensor, experts: tuple[str, ...]) -> Tensor:
        """One product with A, whose states every expert reads: that is what sharing saves."""
        return states(x, self.A)[..., self._rows(experts)]

    def _rows(self, experts: tuple[str, ...]) -> list[int]:
        return [row for name in experts for row in range(self.ranks[name])]


build = SharedDownBank
