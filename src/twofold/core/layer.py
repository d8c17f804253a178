"""`MixtureLinear`: any linear module, a bank of experts beside it, and a router: y = W x + s · B (g ⊙ A x)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from twofold.core.routing import Bank, Roster, Router, current


class MixtureLinear(nn.Module):
    """Wraps `linear` (also a quantised one: only its output is used) and adds the experts that the pass's task sees."""

    def __init__(self, linear: nn.Module, bank: Bank, router: Router, roster: Roster, layer: str, key: str) -> None:
        super().__init__()
        self.linear, self.bank, self.router = linear, bank, router
        self.roster, self.layer, self.key = roster, layer, key  # layers with the same key share one decision per pass
        self.folded: str | None = None
        self._unfolded: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(torch.get_autocast_dtype(x.device.type)) if torch.is_autocast_enabled(x.device.type) else x  # one cast for all readers
        y: Tensor = self.linear(x.flatten(0, -2))  # flat, so that the update can be added in place: a view would be copied in the backward
        batch = current().of(x)
        if self.folded is not None and batch.tasks != (self.folded,):
            raise RuntimeError(f"the model is folded for task {self.folded!r} and was asked for {batch.tasks}: unfold() first")
        experts = self.roster.visible(batch.tasks)
        if experts and self.folded is None:
            z = self.bank.down(x, experts)
            weight = batch.route(self.key, self.layer, experts, lambda: self.router(x, z, batch, experts), z)
            y = self.bank.up(y, z, weight, experts)
        return y.view(*x.shape[:-1], -1)

    @torch.no_grad()
    def fold(self, task: str) -> None:
        """Adds the task's mixed update to W. Raises ValueError where the routing depends on the input or W is not a plain matrix."""
        self.unfold()
        experts = self.roster.visible((task,))
        base = getattr(self.linear, "weight", None)
        if not isinstance(base, nn.Parameter) or not base.is_floating_point():
            raise ValueError(f"layer {self.layer}: cannot fold into a {type(self.linear).__name__} without a floating-point weight")
        if experts:
            weight_E = self.router.constant(task, experts)
            if weight_E is None:
                raise ValueError(f"layer {self.layer}: its routing depends on the input, so it does not fold")
            self._unfolded = base.detach().clone()
            base.add_(self.bank.delta(weight_E.to(base.device), experts).to(base.dtype))
        self.folded = task

    @torch.no_grad()
    def unfold(self) -> None:
        """Puts W back, bit for bit. Nothing happens where nothing is folded."""
        if self._unfolded is not None:
            self.linear.get_parameter("weight").copy_(self._unfolded)
        self.folded = self._unfolded = None
