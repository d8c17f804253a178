"""The mixture in its slow plain form: one expert after the other, one segment after the other, as the formula reads.

Shapes: as in `twofold.core.routing`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from twofold.banks.lora import LoraBank


def mixture(
    linear: nn.Module, bank: LoraBank, experts: Sequence[str], weight: Tensor, level: str, x: Tensor, lengths: Sequence[int]
) -> Tensor:
    """y = W x + Σ_e g_e · s_e · B_e A_e x for a packed stream x (1, T, D); `weight` and `level` as in `Routing`."""
    rows = []
    for s, x_TD in enumerate(x[0].split(list(lengths))):
        for t, x_D in enumerate(x_TD):
            y = linear(x_D)
            for e, name in enumerate(experts):
                if level == "task":
                    g = weight[0, e]
                elif level == "sequence":
                    g = weight[s, e]
                else:
                    g = weight[0, sum(lengths[:s]) + t, e]
                y = y + g * bank.scales[name] * (bank.b[name] @ (bank.a[name] @ x_D))
            rows.append(y)
    return torch.stack(rows)[None]
