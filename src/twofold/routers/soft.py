"""A learned soft router: a score of the layer's input, per sequence or token, made weights by softmax or sigmoid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from twofold.core.routing import Batch, Roster, Router, generator


@dataclass(frozen=True)
class Activation:
    """Scores → weights that sum to `total` (None: the number of experts seen, so that equal weights are all 1)."""

    kind: str
    temperature: float
    total: float | None

    def __post_init__(self) -> None:
        if self.kind not in ("softmax", "sigmoid") or self.temperature <= 0:
            raise ValueError(f"activation {self.kind!r} at temperature {self.temperature}: use 'softmax' or 'sigmoid', above 0")

    def __call__(self, score: Tensor, mask: Tensor | None = None) -> Tensor:
        """(…, E) → (…, E) in fp32, normalised; exactly 0 where `mask` is False, also where it is False everywhere."""
        score = score.float() / self.temperature
        if mask is not None:
            score = score.masked_fill(~mask, torch.finfo(score.dtype).min)
        weight = score.softmax(-1) if self.kind == "softmax" else F.normalize(score.sigmoid(), p=1, dim=-1)
        if mask is None:
            return weight * (score.shape[-1] if self.total is None else self.total)
        return (weight * (mask.sum(-1, keepdim=True) if self.total is None else self.total)).masked_fill(~mask, 0.0)


class SoftRouter(Router):
    """All experts that a task sees count, each by its weight. In fp32; parameters are per expert, so one can be added alone."""

    def __init__(
        self, d_in: int, roster: Roster, activate: Activation, *, hidden: int, level: str, task_input: bool, std: float, seed: int, key: str
    ) -> None:
        super().__init__()
        if level not in ("sequence", "token"):
            raise ValueError(f"level {level!r}: use 'sequence' or 'token'")
        self.roster, self.activate, self.level = roster, activate, level
        self.hidden = nn.Parameter(torch.randn(hidden, d_in, generator=generator(seed, key, "hidden")) * d_in**-0.5) if hidden else None
        draws = {name: generator(seed, key, name) for name in roster.experts}
        self.row = nn.ParameterDict({name: torch.randn(1, hidden or d_in, generator=draw) * std for name, draw in draws.items()})
        pairs = [f"{task}>{name}" for task, names in roster.sees.items() for name in names if task_input]
        self.bias = nn.ParameterDict({name: torch.zeros(1) for name in (*roster.experts, *pairs)})

    def forward(self, x: Tensor, z: Tensor, batch: Batch, experts: tuple[str, ...]) -> tuple[Tensor, str]:  # noqa: ARG002
        return self.activate(self.score(x, batch, experts), self.roster.mask(batch, experts, self.level)), self.level

    def score(self, x: Tensor, batch: Batch, experts: tuple[str, ...]) -> Tensor:
        """x (1, T, D) or (S, L, D) → linear or one-hidden-layer scores (S, E), or (…, E) per token."""
        pooled = self.level == "sequence"
        with torch.autocast(x.device.type, enabled=False):
            x, row_EW = x.float(), torch.cat([self.row[name] for name in experts]).float()
            if self.hidden is not None:
                score = F.linear(F.gelu(F.linear(batch.pool(x) if pooled else x, self.hidden.float())), row_EW)
            else:  # the mean of linear scores is the score of the mean, and E numbers are cheaper to pool than D
                score = batch.pool(F.linear(x, row_EW)) if pooled else F.linear(x, row_EW)
            bias_SE = torch.stack([torch.cat([self.bias[e] + self.bias.get(f"{task}>{e}", 0.0) for e in experts]) for task in batch.tasks])
            return score + (bias_SE if pooled or len(bias_SE) == 1 else batch.spread(bias_SE, "sequence"))


def build(
    *,
    d_in: int,
    roster: Roster,
    seed: int,
    key: str,
    score: str = "linear",
    hidden: int = 64,
    level: str = "sequence",
    activation: str = "softmax",
    temperature: float = 1.0,
    total: float | None = None,
    task_input: bool = True,
    std: float = 0.02,
) -> SoftRouter:
    """`score` linear or mlp (with `hidden` units); `level` sequence or token; `activation` softmax or sigmoid (normalised).

    `total`: what the weights sum to (default: the number of experts, so that a mixture starts at the scale of one LoRA
    of the summed rank); `task_input`: whether the router is told the task; `std`: of the initial scores' weights.
    """
    if score not in ("linear", "mlp"):
        raise ValueError(f"score {score!r}: use 'linear' or 'mlp'")
    units, activate = hidden if score == "mlp" else 0, Activation(activation, temperature, total)
    return SoftRouter(d_in, roster, activate, hidden=units, level=level, task_input=task_input, std=std, seed=seed, key=key)
