"""Mixtures over trained experts in their slow plain form: token by token, expert by expert, element by element, as the papers say it.

Shapes: x (T, D) tokens of one text; A_e (r_e, D), B_e (O, r_e) with the expert's scale in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Factors = Mapping[str, tuple[Tensor, Tensor]]
"""Expert → (A, B)."""


def ramole(x_TD: Tensor, experts: Factors, down_rD: Tensor, up_Or: Tensor) -> Tensor:
    """(T, E): softmax over the experts of ⟨A_r x, B_rᵀ (B_e A_e x)⟩ / √r."""
    rows = []
    for x_D in x_TD:
        query = down_rD @ x_D
        keys = [up_Or.T @ (b @ (a @ x_D)) for a, b in experts.values()]
        score = [float(query @ key) / math.sqrt(len(query)) for key in keys]
        whole = sum(math.exp(value) for value in score)
        rows.append([math.exp(value) / whole for value in score])
    return torch.tensor(rows)


def mole(state_R: Sequence[float], gate_ER: Sequence[Sequence[float]], temperature: float, kept: Sequence[bool]) -> list[float]:
    """Softmax(E_Ω · e / τ) over all experts; then those kept share the weight in their proportions."""
    length = math.sqrt(sum(value * value for value in state_R))
    normal = [value / length * math.sqrt(len(state_R)) for value in state_R]
    score = [sum(a * b for a, b in zip(row, normal, strict=True)) / temperature for row in gate_ER]
    weight = [math.exp(value) / sum(math.exp(other) for other in score) for value in score]
    left = sum(value for value, keep in zip(weight, kept, strict=True) if keep)
    return [value / left if keep else 0.0 for value, keep in zip(weight, kept, strict=True)]


def ties(updates: Sequence[Tensor], density: float) -> Tensor:
    """Trim, elect the sign, mean of those that agree: one element after the other."""
    trimmed = []
    for update in updates:
        values = update.flatten().tolist()
        order = sorted(range(len(values)), key=lambda i: -abs(values[i]))[: int(density * len(values))]
        trimmed.append([value if i in set(order) else 0.0 for i, value in enumerate(values)])
    out = []
    for column in zip(*trimmed, strict=True):
        sign = 1 if sum(column) >= 0 else -1
        agreeing = [value for value in column if value * sign > 0]
        out.append(sum(agreeing) / max(len(agreeing), 1))
    return torch.tensor(out).view_as(updates[0])
