"""The control that every learned router must beat: `soft` with random scores that never train.

A tie with it credits the extra rank, not the routing.
"""

from __future__ import annotations

from twofold.core.routing import Roster
from twofold.routers.soft import Activation, SoftRouter


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
) -> SoftRouter:
    """`std` of the random scores' weights (wider than a learned router's start, so that the weights really differ)."""
    activate = Activation("softmax", temperature, total)
    return SoftRouter(d_in, roster, activate, hidden=0, level=level, task_input=False, std=std, seed=seed, key=key).requires_grad_(False)
