"""The control that every learned router must beat: `soft` with random scores that never train.

A tie with it credits the extra rank, not the routing.
"""

from __future__ import annotations

from torch import nn

from twofold.core.routing import Roster
from twofold.routers._scored import ScoredRouter, activation


class FrozenRandomRouter(ScoredRouter):
    """A soft router whose parameters no stage trains."""

    @property
    def never_trained(self) -> tuple[nn.Parameter, ...]:
        """What training leaves as it is, whatever a stage names."""
        return tuple(self.parameters())


def build(
    *,
    d_in: int,
    roster: Roster,
    seed: int,
    key: str,
    level: str = "sequence",
    temperature: float = 1.0,
    total: float | None = None,
    std: float = 0.1,
) -> FrozenRandomRouter:
    """`std` of the random scores' weights (wider than a learned router's start, so that the weights really differ)."""
    activate = activation("softmax", temperature, total)
    router = FrozenRandomRouter(d_in, roster, activate, hidden=0, level=level, task_input=False, std=std, seed=seed, key=key)
    return router.requires_grad_(False)
