"""LoRA experts whose ranks begin to count one after another (as DR-LoRA grows them, arXiv 2601.04823).

All ranks are there from the start; of each expert only the first `active` count. One that does not count gets no gradient, so its
column of B is still zero when it begins to: growing changes no output at the step where it happens.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from twofold.banks._stacked import StackedBank, drawn_a


class GrowingBank(StackedBank):
    """As `lora`, with a buffer `active_E`: how many ranks of each expert count, in the order of the bank's experts.

    The scale does not change with it, so that growth is no jump.
    """

    active_E: Tensor

    def __init__(
        self, d_in: int, d_out: int, ranks: Mapping[str, int], scales: Mapping[str, float], layer: str, seed: int, start: int
    ) -> None:
        super().__init__(ranks, scales)
        for name, rank in ranks.items():
            self.a[name] = drawn_a(rank, d_in, seed, layer, name)
            self.b[name] = nn.Parameter(torch.zeros(d_out, rank))
        self.register_buffer("active_E", torch.tensor([min(start, rank) for rank in ranks.values()]))

    def per_rank(self, weight: Tensor, experts: tuple[str, ...]) -> Tensor:
        """Zero for the ranks that do not count yet."""
        at = [list(self.ranks).index(name) for name in experts]
        counts = [torch.arange(self.ranks[name], device=weight.device) < self.active_E[i] for name, i in zip(experts, at, strict=True)]
        return super().per_rank(weight, experts) * torch.cat(counts)


def build(
    d_in: int, d_out: int, ranks: Mapping[str, int], scales: Mapping[str, float], layer: str, seed: int, start: int = 4
) -> GrowingBank:
    """`start`: the ranks of each expert that count before any growth. Raises ValueError for fewer than one."""
    if start < 1:
        raise ValueError(f"growing: start = {start}; an expert without a rank would never show that it needs one")
    return GrowingBank(d_in, d_out, ranks, scales, layer, seed, start)
