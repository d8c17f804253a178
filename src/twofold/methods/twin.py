"""A control: a trained soft mixture with another rule in the place of its router at test; nothing is trained.

`start` is a model of `moe_lora`'s, whose experts and heads stay the very same. The rules: "mean" gives every text the mean that
its task had over training batches (as `mixture_mean`, which trains anew); "hard" gives the whole weight to the largest score;
"permuted" gives every text the weights of another input of its task (as `permuted`). What a twin loses against its model is what
that part of the routing was worth.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from twofold.core.inject import mixtures
from twofold.core.routing import Routing
from twofold.errors import ConfigError
from twofold.methods import Batches, Change, Member, Method
from twofold.methods._changes import run_passes, to_means
from twofold.model.replan import replan
from twofold.model.unified import UnifiedModel
from twofold.routers._scored import ScoredRouter
from twofold.routers.permuted import PermutedRouter
from twofold.routers.topk import TopKRouter

NEEDS_START = "moe_lora"
RULES = ("mean", "hard", "permuted")


def build(*, tasks: tuple[str, ...], rule: str = "mean", batches: int = 8, donors: int = 64) -> Method:
    """`rule` mean, hard or permuted; `batches`: so many training batches of each task make the mean, or the `donors` rows of weights."""
    if rule not in RULES or batches < 1:
        raise ValueError(f"twin: rule {rule!r}, batches {batches}; use {', '.join(RULES)}, and 1 or more")
    change = {"mean": to_means(tasks, batches), "hard": to_hard(), "permuted": to_permuted(tasks, batches, donors)}[rule]
    return Method("twin", (Member("unified", tasks, (), after=change),))


def to_hard() -> Change:
    """Routers become a top-1 of the same scores; its weight is what all weights summed to, so that the update keeps its scale."""

    def change(model: UnifiedModel, batches: Batches) -> None:  # noqa: ARG001
        old, plan = soft_routers(model), model.spec.plan
        own = {"level": "sequence", "task_input": True, **plan.router_options, "k": 1}
        own["total"] = own.get("total") or float(len(plan.experts))
        replan(model, replace(plan, router="topk", router_options=own))
        for layer in mixtures(model):
            assert isinstance(layer.router, TopKRouter)
            layer.router.scored.load_state_dict(old[layer.layer].state_dict())

    return change


def to_permuted(tasks: tuple[str, ...], steps: int, donors: int) -> Change:
    """Routers keep what they learned and, in eval mode, give the weights of other inputs: those of the first training batches."""

    def change(model: UnifiedModel, batches: Batches) -> None:
        old, plan = soft_routers(model), model.spec.plan
        rows = {task: routing_rows(model, batches, task, steps) for task in tasks}
        own: dict[str, Any] = {key: value for key, value in plan.router_options.items() if key != "level"}
        replan(model, replace(plan, router="permuted", router_options={**own, "donors": donors}))
        for layer in mixtures(model):
            router = layer.router
            assert isinstance(router, PermutedRouter)
            router.load_state_dict(old[layer.layer].state_dict(), strict=False)
            for kept_NE, task in zip(router.donor_KNE, layer.roster.sees, strict=True):
                found_NE = rows[task][layer.layer] if task in rows else kept_NE
                kept_NE.copy_(found_NE[torch.arange(donors) % len(found_NE)])

    return change


def routing_rows(model: UnifiedModel, batches: Batches, task: str, steps: int) -> dict[str, Tensor]:
    """Layer → (N, E) weights of the texts of the task's first training batches, in the same order in every layer."""
    rows: dict[str, list[Tensor]] = {}

    def look(routings: dict[str, Routing]) -> Tensor:
        for name, routing in routings.items():
            rows.setdefault(name, []).append(routing.weight.detach())
        return torch.zeros((), device=next(model.parameters()).device)

    run_passes(model, batches, task, steps, look)
    return {name: torch.cat(found) for name, found in rows.items()}


def soft_routers(model: UnifiedModel) -> dict[str, nn.Module]:
    """Layer → its learned soft router. Raises ConfigError where the model has none, or one that decides for every token."""
    found = {layer.layer: layer.router for layer in mixtures(model)}
    if not found or any(type(router) is not ScoredRouter or router.level != "sequence" for router in found.values()):
        raise ConfigError(f"twin: {model.spec.plan.router!r} routes the model to start from: it should be 'moe_lora', routed per sequence")
    return dict(found)
