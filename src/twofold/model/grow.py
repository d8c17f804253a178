"""A trained model grows: new experts, tasks and heads beside the old ones, which stay as they are, bit for bit.

An old task never sees a new expert, and what a task does not see it never computes; so every older vector and score is
the same afterwards, and an index that was built before stays valid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from twofold.core.inject import LayerPlan
from twofold.model.spec import ModelSpec
from twofold.model.state import load_state, state_of
from twofold.model.unified import UnifiedModel
from twofold.model.weights import mixture_parameters
from twofold.tasks import kind_of


@dataclass(frozen=True)
class Growth:
    """What is added to a model: nothing at all, or experts and the tasks that see them."""

    plan: LayerPlan = field(default_factory=LayerPlan)
    """`experts`: the new ones; `sees`: new task → the new experts that it sees. Bank, router, targets and scope are the old model's."""
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Task → options of its `build`, for all tasks that are trained; those that the model has keep its options."""
    beside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """New task → the old experts that it sees as well; one that is missing sees those of its kind in the model, or all."""


def grown(spec: ModelSpec, growth: Growth) -> ModelSpec:
    """The spec with what is added. Raises ValueError for an expert that is there already, and for a new one that no new task sees."""
    old, plan = [expert.name for expert in spec.plan.experts], growth.plan
    if twice := sorted({expert.name for expert in plan.experts} & set(old)):
        raise ValueError(
            f"the model has an expert {twice[0]!r} already (it has {old}): add one of another name, or train on with 'continued'"
        )
    fresh = {task: options for task, options in growth.tasks.items() if task not in spec.tasks}
    if plan.experts and not fresh:
        raise ValueError(f"the model does {sorted(growth.tasks)} already: a new expert needs a task of its own, such as 'retrieve:legal'")
    sees = dict(spec.plan.roster(tuple(spec.tasks)).sees)
    for task in fresh:
        kin = sees.get(kind_of(task), tuple(old))
        if unknown := sorted(set(growth.beside.get(task, ())) - set(old)):
            raise ValueError(f"task {task!r} shall see the old expert {unknown[0]!r}, and the model has {old}")
        new = plan.sees.get(task, tuple(expert.name for expert in plan.experts))
        sees[task] = (*growth.beside.get(task, kin), *new)
    tasks = {**spec.tasks, **{task: {**spec.tasks.get(kind_of(task), {}), **options} for task, options in fresh.items()}}
    return replace(spec, tasks=tasks, plan=replace(spec.plan, experts=(*spec.plan.experts, *plan.experts), sees=sees))


def fill(model: UnifiedModel, state: Mapping[str, Tensor], growth: Growth, old: ModelSpec) -> None:
    """Puts a smaller model's tensors into the grown one, and a new task's start from the task of its kind; freezes the old ones.

    Raises ValueError where the bank or the router keeps its parameters in a way that cannot grow.
    """
    fresh = state_of(model)
    lost = [name for name, tensor in state.items() if name not in fresh or fresh[name].shape != tensor.shape]
    if lost:
        raise ValueError(f"this model cannot grow: its bank or router has no place for {sorted(lost)[:4]} beside new experts")
    new_tasks = [task for task in growth.tasks if task not in old.tasks]
    starts = {name: state[kin] for task in new_tasks for name, kin in _kin(fresh, task) if kin in state and name not in state}
    load_state(model, {**fresh, **{n: t for n, t in starts.items() if fresh[n].shape == t.shape}, **state})
    if growth.plan.experts or new_tasks:
        own = named_parameters(model)
        model.never_trained = [own[name] for name in state if name in own]


def named_parameters(model: UnifiedModel) -> dict[str, nn.Parameter]:
    """The parameters of experts, routers and heads by the names of `state_of`."""
    found = {f"mixture.{name}": parameter for name, (_, parameter) in mixture_parameters(model.backbone.model).items()}
    return found | {f"head.{name}": parameter for name, parameter in model.tasks.named_parameters()}


def _kin(names: Mapping[str, Tensor], task: str) -> Iterator[tuple[str, str]]:
    """Tensors of a task (its head, its biases in the routers) and what those of its kind are called."""
    kind = kind_of(task)
    for name in names:
        if name.startswith(f"head.{task}."):
            yield name, f"head.{kind}.{name.removeprefix(f'head.{task}.')}"
        elif f".{task}>" in name:
            yield name, name.replace(f".{task}>", f".{kind}>")
