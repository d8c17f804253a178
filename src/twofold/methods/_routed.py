"""A companion that knows what all tasks of a step routed: what balance, growth and the like are made from.

A loss on the batch of one task alone would punish an expert for being that task's specialist, so shares are means over the tasks,
each counted the same however many tokens it has.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from twofold.core.inject import mixtures
from twofold.core.routing import Routing
from twofold.methods import Companion, Stage, Total
from twofold.tasks import RoutingLoss


class Routed(Companion):
    """Measures every pass by `measure`; `slots` says where each layer's experts stand in a vector of all layers' (F,)."""

    def __init__(self, stage: Stage, model: nn.Module, steps: int, total: Total) -> None:
        super().__init__(stage, model, steps, total)
        layers = list(mixtures(model))
        ends = [sum(len(each.roster.experts) for each in layers[: i + 1]) for i in range(len(layers))]
        self.slots = {each.layer: slice(end - len(each.roster.experts), end) for each, end in zip(layers, ends, strict=True)}
        self.device = next(model.parameters()).device
        self._sums = {task: self.zeros().repeat(2, 1) for task in stage.tasks}  # of what is measured, and of how many

    def zeros(self) -> Tensor:
        """(F,)."""
        return torch.zeros(max(slot.stop for slot in self.slots.values()), device=self.device)

    def measure(self, routing: Routing) -> Tensor:
        """(…, E) of each segment or token: whether it uses the expert."""
        return (routing.weight > 0).float()

    def loss(self, routings: dict[str, Routing]) -> Tensor:  # noqa: ARG002
        """What the pass adds to the task's loss: nothing, here."""
        return torch.zeros((), device=self.device)

    def auxiliary(self, task: str) -> RoutingLoss:
        """Takes note of the pass, and gives its loss."""

        def noted(routings: dict[str, Routing]) -> Tensor:
            with torch.no_grad():
                for name, routing in routings.items():
                    found = self.measure(routing).flatten(0, -2)
                    self._sums[task][0, self.slots[name]] += found.sum(0)
                    self._sums[task][1, self.slots[name]] += len(found)  # a table of positions goes through some layers besides
            return self.loss(routings)

        return noted

    def shares(self) -> Tensor:
        """(F,) means over the segments or tokens of each task of all processes, then over the tasks, since the last call."""
        whole = [self.total(sums) for sums in self._sums.values()]
        self._sums = {task: torch.zeros_like(sums) for task, sums in self._sums.items()}
        return torch.stack([sum_F / count_F for sum_F, count_F in whole]).mean(0)
