"""Weights by learned scores of a layer's input: what `soft` is made of, and routers like it. Shapes as in `routing`."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from twofold.core.kept import Kept
from twofold.core.product import linear
from twofold.core.routing import Batch, Decision, Roster, Router, generator

Activate = Callable[[Tensor, Tensor | None], Tensor]


def activation(kind: str, temperature: float, total: float | None) -> Activate:
    """Scores (…, E), mask → weights that sum to `total` (None: the number of experts seen, so that equal weights are all 1).

    They are 0 where the mask is False, also where it is False everywhere. `kind` is "softmax" or "sigmoid" (normalised).
    """
    if kind not in ("softmax", "sigmoid") or temperature <= 0:
        raise ValueError(f"activation {kind!r} at temperature {temperature}: use 'softmax' or 'sigmoid', above 0")
    return functools.partial(_activate, kind=kind, temperature=temperature, total=total)


def _activate(score: Tensor, mask: Tensor | None, *, kind: str, temperature: float, total: float | None) -> Tensor:
    score = score.float() / temperature
    if mask is not None:
        score = score.masked_fill(~mask, torch.finfo(score.dtype).min)
    weight = score.softmax(-1) if kind == "softmax" else F.normalize(score.sigmoid(), p=1, dim=-1)
    if mask is None:
        return weight * (score.shape[-1] if total is None else total)
    return (weight * (mask.sum(-1, keepdim=True) if total is None else total)).masked_fill(~mask, 0.0)


class ScoredRouter(Router):
    """All experts a task sees count, by scores in the input's precision, pooled in fp32. Parameters are per expert, to be added alone."""

    def __init__(
        self, d_in: int, roster: Roster, activate: Activate, *, hidden: int, level: str, task_input: bool, std: float, seed: int, key: str
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
        self._kept: Kept[tuple[Tensor, Tensor]] = Kept()
        self.register_load_state_dict_post_hook(self._kept.forget)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor, z: Tensor, batch: Batch, experts: tuple[str, ...]) -> Decision:  # noqa: ARG002
        score = self.score(x, batch, experts)
        return Decision(self.activate(score, self.roster.mask(batch, experts, self.level)), self.level, score)

    def score(self, x: Tensor, batch: Batch, experts: tuple[str, ...]) -> Tensor:
        """x (1, T, D) or (S, L, D) → linear or one-hidden-layer scores (S, E), or (…, E) per token."""
        pooled = self.level == "sequence"
        with torch.autocast(x.device.type, enabled=False):
            pool = batch.pool if pooled else lambda each: each
            if self.hidden is not None:
                row_EW, bias_SE = self._stacked(batch, experts, torch.float32)
                score = F.linear(F.gelu(F.linear(pool(x.float()), self.hidden.float())), row_EW)
            else:  # the mean of linear scores is the score of the mean, and E numbers are cheaper to pool than D
                row_EW, bias_SE = self._stacked(batch, experts, x.dtype)
                score = pool(linear(x, row_EW).float())
            return score + (bias_SE if pooled or len(bias_SE) == 1 else batch.spread(bias_SE, "sequence"))

    def _stacked(self, batch: Batch, experts: tuple[str, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The experts' rows (E, W) in `dtype`, and their biases for the pass's task (1, E) or for each segment's (S, E)."""
        names, place_S = batch.once("tasks", lambda: _places(batch))

        def owned() -> list[list[nn.Parameter]]:
            return [[self.bias[name] for name in (e, f"{task}>{e}") if name in self.bias] for task in names for e in experts]

        def leaves() -> list[nn.Parameter]:
            return [*(self.row[e] for e in experts), *itertools.chain.from_iterable(owned())]

        def make() -> tuple[Tensor, Tensor]:
            bias = torch.cat([sum(rest, first) for first, *rest in owned()])
            return torch.cat([self.row[e] for e in experts]).to(dtype), bias.view(len(names), len(experts))

        row_EW, bias_UE = self._kept.get((experts, names, dtype), leaves, self.training, make)
        return row_EW, bias_UE if len(batch.tasks) == 1 else bias_UE[place_S]


def _places(batch: Batch) -> tuple[tuple[str, ...], Tensor]:
    """The different tasks of a pass, and which of them each segment is of."""
    names = tuple(sorted(set(batch.tasks)))
    return names, torch.tensor([names.index(task) for task in batch.tasks], device=batch.device)
