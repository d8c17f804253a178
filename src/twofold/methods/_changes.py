"""What methods do to a trained model without training it: another router over its experts, a look at its layers on training batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from twofold.core.inject import mixtures
from twofold.core.routing import Routing, current
from twofold.errors import ConfigError
from twofold.methods import Batches, Change
from twofold.model.replan import replan
from twofold.model.unified import UnifiedModel
from twofold.routers.task_gate import TaskGateRouter
from twofold.tasks import RoutingLoss, StepContext, Task


def route_over(router: str, options: Mapping[str, Any], scope: str) -> Change:
    """Puts a router over all experts of the model, which every task then sees. Raises ConfigError where there are none."""

    def change(model: UnifiedModel, batches: Batches) -> None:  # noqa: ARG001
        if not model.spec.plan.experts:
            raise ConfigError(f"{router}: the model to start from has no experts to route over: start from one of 'hard_lora', say")
        replan(model, replace(model.spec.plan, router=router, router_options=dict(options), scope=scope, sees={}))

    return change


def mean_routing(model: UnifiedModel, batches: Batches, task: str, steps: int) -> dict[str, Tensor]:
    """Layer → (E,) weights of the experts that the task sees: the mean over the texts of its first `steps` training batches, or over
    their tokens where the routing is per token."""
    total: dict[str, Tensor] = {}
    count: dict[str, int] = {}

    def look(routings: dict[str, Routing]) -> Tensor:
        for layer, routing in routings.items():
            weight_NE = routing.weight.detach().double().flatten(0, -2)
            total[layer] = total.get(layer, 0.0) + weight_NE.sum(0)
            count[layer] = count.get(layer, 0) + len(weight_NE)
        return torch.zeros(())

    run_passes(model, batches, task, steps, look)
    return {layer: total[layer] / count[layer] for layer in total}


def to_means(tasks: tuple[str, ...], steps: int) -> Change:
    """Replaces the routers by constants: `task_gate`, whose softmax of log w is w."""

    def change(model: UnifiedModel, batches: Batches) -> None:
        mean = {task: mean_routing(model, batches, task, steps) for task in tasks}
        replan(model, replace(model.spec.plan, router="task_gate", router_options={}))
        for layer in mixtures(model):
            assert isinstance(layer.router, TaskGateRouter)
            for task in tasks:
                for name, weight in zip(layer.roster.visible((task,)), mean[task][layer.layer], strict=True):
                    with torch.no_grad():
                        layer.router.score[f"{task}>{name}"].fill_(float(weight.log()))

    return change


def mean_input(model: UnifiedModel, batches: Batches, task: str, steps: int) -> Tensor:
    """(D,): what comes into the first layer that has experts, pooled by text, as the mean over the task's first training batches."""
    seen: list[Tensor] = []

    def look(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen.append(current().pool(given[0].detach().float()))

    handle = next(mixtures(model)).register_forward_pre_hook(look)
    try:
        run_passes(model, batches, task, steps)
    finally:
        handle.remove()
    return torch.cat(seen).mean(0)


def run_passes(model: UnifiedModel, batches: Batches, task: str, steps: int, look: RoutingLoss | None = None) -> None:
    """Runs the task's own passes over its first training batches, in eval mode, and drops their gradients: nothing is learnt."""
    training, module = model.training, model.tasks[task]
    assert isinstance(module, Task)
    model.eval()
    try:
        for step in range(steps):
            module.step(batches(task, step), StepContext(model.encoder, lambda _: None, auxiliary=look))
    finally:
        model.train(training)
