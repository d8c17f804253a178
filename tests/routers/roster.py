"""What the routers' tests share: a roster, a batch and a stream."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from twofold import plugins
from twofold.banks.lora import LoraBank
from twofold.core.routing import Batch, Roster, Router

EXPERTS = ("a", "b", "c")
ROSTER = Roster(EXPERTS, {"retrieve": ("a", "b"), "rerank": ("a", "b", "c")})
LENGTHS = (4, 2)


def build(name: str, roster: Roster = ROSTER, **options: Any) -> Router:
    given = {"d_in": 8, "roster": roster, "tasks": tuple(roster.sees), "seed": 0, "key": "layers.0", "bank": make_bank(roster)}
    made: Router = plugins.build_plugin("routers", name, options, **given)
    return made


def make_bank(roster: Roster = ROSTER) -> LoraBank:
    """Experts of rank 2, 3, 2, … whose updates say something."""
    ranks = {name: 2 + i % 2 for i, name in enumerate(roster.experts)}
    bank = LoraBank(8, 7, ranks, dict.fromkeys(ranks, 2.0), "layers.0.query", seed=0)
    for i, name in enumerate(ranks):
        draw = torch.Generator().manual_seed(10 + i)
        bank.b[name].data.copy_(torch.randn(bank.b[name].shape, generator=draw))
    return bank


def widen(router: Router, std: float = 1.0) -> Router:
    """The router with parameters that say something."""
    draw = torch.Generator().manual_seed(3)
    for parameter in router.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=draw) * std)
    return router


def weights(router: Router, task: str | tuple[str, ...] = "rerank", seed: int = 0) -> tuple[Tensor, str]:
    """(weight, level) for two segments of random tokens."""
    x = torch.randn(1, sum(LENGTHS), 8, generator=torch.Generator().manual_seed(seed))
    batch = Batch(task, LENGTHS)
    weight, level, *_ = router(x, x, batch, ROSTER.visible(batch.tasks))
    return weight, level
