"""A learned soft router: a score of the layer's input, per sequence or token, made weights by softmax or sigmoid."""

from __future__ import annotations

from twofold.core.routing import Roster
from twofold.routers import _scored as scoring


def build(
    *,
    d_in: int,
    roster: Roster,
    seed: int,
    key: str,
    hidden: int = 0,
    level: str = "sequence",
    activation: str = "softmax",
    temperature: float = 1.0,
    total: float | None = None,
    task_input: bool = True,
    std: float = 0.02,
) -> scoring.ScoredRouter:
    """`hidden` units of an MLP score (0: linear); `level` sequence or token; `activation` softmax or sigmoid (normalised).

    `total`: what the weights sum to (default: the number of experts, so that a mixture starts at the scale of one LoRA
    of the summed rank); `task_input`: whether the router is told the task; `std`: of the initial scores' weights.
    """
    activate = scoring.activation(activation, temperature, total)
    return scoring.ScoredRouter(d_in, roster, activate, hidden=hidden, level=level, task_input=task_input, std=std, seed=seed, key=key)
