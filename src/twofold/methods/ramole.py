"""Frozen trained specialists, chosen by similarity and mixed by attention (RAMoLE, Zhao et al. 2024, arXiv 2406.16989).

`start` is a model whose experts were trained apart, such as `hard_lora`'s. Experts and heads stay as they are; only the router's
LoRA learns, on passes in which experts are missing at random. An expert's prototype is the mean embedding of training inputs of
the tasks that used it; one that none of the trial's tasks used has none and is always a candidate. Experts that are added later
need no training of the router. The rest, and what differs from the paper, stands in `routers/ramole.py`.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from twofold.core.inject import mixtures
from twofold.methods import Batches, Change, Member, Method, Stage
from twofold.methods._changes import mean_input, route_over
from twofold.model.unified import UnifiedModel
from twofold.routers.ramole import RamoleRouter

NEEDS_START = "hard_lora"


def build(*, tasks: tuple[str, ...], k: int = 3, rank: int = 8, drop: float = 0.3, batches: int = 8) -> Method:
    """`k` experts for a text; `rank` of the router's LoRA; `drop`: how likely a step does without an expert; `batches`: so many
    training batches of each task make the prototypes."""
    if not 0 <= drop < 1 or batches < 1:
        raise ValueError(f"ramole: drop {drop}, batches {batches}; use 0 to below 1, and 1 or more")
    stage = Stage("router", tasks, ("router",), after_step=partial(drop_experts, probability=drop) if drop else None)
    before = meet_experts(tasks, route_over("ramole", {"k": k, "rank": rank}, "linear"), batches)
    return Method("ramole", (Member("unified", tasks, (stage,), before=before),))


def meet_experts(tasks: tuple[str, ...], route: Change, steps: int) -> Change:
    """Puts the router over the experts and gives it a prototype of each that some of `tasks` saw in the model as it was."""

    def change(model: UnifiedModel, batches: Batches) -> None:
        saw = model.spec.plan.roster(tuple(model.tasks)).sees
        route(model, batches)
        mean = {task: mean_input(model, batches, task, steps) for task in tasks}
        for expert in model.spec.plan.experts:
            own = [mean[task] for task in tasks if expert.name in saw[task]]
            for router in routers(model) if own else ():
                if router.width == len(own[0]):  # the choice is made where the first layer is, whose input this is
                    router.meet(expert.name, torch.stack(own).mean(0))

    return change


def drop_experts(model: nn.Module, step: int, *, probability: float) -> None:
    """The experts that the next step does without."""
    for router in routers(model):
        router.drop(probability, step)


def routers(model: nn.Module) -> list[RamoleRouter]:
    """The model's routers, one for each layer."""
    return [layer.router for layer in mixtures(model) if isinstance(layer.router, RamoleRouter)]
