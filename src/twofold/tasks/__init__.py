"""Tasks: what the model is asked to do. One file each; the file's name is the task's name.

A task says how its inputs are made, how a score comes out, what its loss is, and which measure tells whether it is
getting better. It owns its head, if it has one. It never sees a router, a method or the loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from twofold.backbone.backbone import Backbone
from twofold.backbone.packed import Pack, split
from twofold.backbone.tokens import TextTokens
from twofold.core.routing import Routing
from twofold.records import Example


class Encoder(NamedTuple):
    """What a task needs of a model."""

    backbone: Backbone
    tokens: TextTokens


class StepResult(NamedTuple):
    """What one task's share of an optimiser step did."""

    loss: float
    """Mean loss over this process's examples."""
    tokens: int
    """Tokens that went through the backbone with a gradient."""
    truncated: int
    """Texts that were cut."""


@dataclass(frozen=True)
class World:
    """The processes that train together. `gather` maps an equally shaped tensor of every process to all of them in order,
    without gradient; alone it returns its input."""

    rank: int = 0
    size: int = 1
    gather: Callable[[Tensor], Tensor] = lambda tensor: tensor


RoutingLoss = Callable[[dict[str, Routing]], Tensor]
"""An auxiliary loss on what the routers decided in one pass."""


class Task(nn.Module, ABC):
    """One job of the model."""

    @abstractmethod
    def step(
        self, encoder: Encoder, examples: Sequence[Example], *, world: World, token_budget: int, weight: float, backward: Callable[[Tensor], None], auxiliary: RoutingLoss | None
    ) -> StepResult:
        """Runs `examples` forward and backward, at most about `token_budget` tokens at a time; gradients are left in `.grad`.

        Summed over all processes they are the gradient of `weight` times the mean loss over all their examples.
        """

    @property
    @abstractmethod
    def measure(self) -> str:
        """The evaluation row that says how good the task is: "dense" or "reranked"."""


def run_chunks(encoder: Encoder, pack: Pack, task: str, token_budget: int, head: Callable[[Tensor, Pack], Tensor]) -> tuple[Tensor, list[dict[str, Routing]]]:
    """`head(hidden_TD, chunk)` → (S, …) over chunks of the pack, put together in the caller's order; and each chunk's routings."""
    outputs, positions, routings = [], [], []
    for chunk, at in split(pack, token_budget):
        hidden_TD, routing = encoder.backbone(chunk, task)
        outputs.append(head(hidden_TD, chunk))
        positions.extend(at)
        routings.append(routing)
    back = torch.empty(len(positions), dtype=torch.long)
    back[torch.tensor(positions)] = torch.arange(len(positions))
    return torch.cat(outputs)[back.to(outputs[0].device)], routings
