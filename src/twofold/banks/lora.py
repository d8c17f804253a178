"""LoRA experts, stored apart and applied as one stacked pair of matrices (Hu et al. 2022, arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from twofold.banks._stacked import StackedBank, drawn_a


class LoraBank(StackedBank):
    """A from Kaiming's uniform, B zero, as in PEFT; every expert's start depends on the seed, the layer and its name only."""

    def __init__(self, d_in: int, d_out: int, ranks: Mapping[str, int], scales: Mapping[str, float], layer: str, seed: int) -> None:
        super().__init__(ranks, scales)
        for name, rank in ranks.items():
            self.a[name] = drawn_a(rank, d_in, seed, layer, name)
            self.b[name] = nn.Parameter(torch.zeros(d_out, rank))


build = LoraBank
