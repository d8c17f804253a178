"""The control for "does the input matter": trained as `soft`, and at test every input gets the weights of another input of its task.

Weights of training inputs are kept per task (`methods/permuted.py` puts them there, one row for each input, in the same order in
every layer). In eval mode a text takes one of them, the same in all layers, by a hash of its first layer's input: so its weights have
the distribution of its task and nothing of its own, and still do not depend on what else is in the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twofold.core.routing import Batch, Decision, Roster
from twofold.routers import _scored as scoring

BITS = 16


class PermutedRouter(scoring.ScoredRouter):
    """In training mode it is `soft`. A donor that was not filled yet gives equal weights."""

    donor_KNE: Tensor
    """For each task of the roster, N rows of weights over its experts."""

    def keep(self, donors: int) -> PermutedRouter:
        """Makes room for so many rows a task."""
        seen_KE = torch.tensor([[float(name in names) for name in self.roster.experts] for names in self.roster.sees.values()])
        self.register_buffer("donor_KNE", seen_KE[:, None].repeat(1, donors, 1))
        return self

    def forward(self, x: Tensor, z: Tensor, batch: Batch, experts: tuple[str, ...]) -> Decision:
        if self.training:
            return super().forward(x, z, batch, experts)
        donor_S = batch.once("donor", lambda: donor_of(batch.pool(x.float()), self.donor_KNE.shape[1]))
        known = list(self.roster.sees)
        task_S = torch.tensor([known.index(task) for task in batch.tasks], device=x.device).expand(len(donor_S))
        weight_SE = self.donor_KNE[task_S, donor_S][:, [self.roster.experts.index(name) for name in experts]]
        return Decision(weight_SE, "sequence")


def donor_of(pooled_SD: Tensor, number: int) -> Tensor:
    """(S,) numbers below `number` that depend on each row alone: its first signs, mixed so that neighbours fall apart."""
    signs = (pooled_SD[:, :BITS] > 0).long()
    code_S = (signs << torch.arange(signs.shape[1], device=signs.device)).sum(-1)
    return ((code_S + 1) * 2654435761 >> 9) % number


def build(
    *,
    d_in: int,
    roster: Roster,
    seed: int,
    key: str,
    hidden: int = 0,
    activation: str = "softmax",
    temperature: float = 1.0,
    total: float | None = None,
    task_input: bool = True,
    std: float = 0.02,
    donors: int = 64,
) -> PermutedRouter:
    """`donors` rows of weights are kept of each task; the rest as for `soft` at level sequence."""
    activate = scoring.activation(activation, temperature, total)
    made = PermutedRouter(d_in, roster, activate, hidden=hidden, level="sequence", task_input=task_input, std=std, seed=seed, key=key)
    return made.keep(donors)
