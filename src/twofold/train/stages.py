"""What a stage trains, for how many steps, and at what rate."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import nn

from twofold.config import OptimConfig
from twofold.methods import Companion, Member, Stage
from twofold.model.unified import UnifiedModel

Groups = dict[str, list[tuple[str, nn.Parameter]]]
"""Parameter group → its (name, parameter)s; see `UnifiedModel.groups`."""


class Span(NamedTuple):
    """A stage and its optimiser steps: `start` ≤ step < `end`, counted over all stages of the member."""

    stage: Stage
    start: int
    end: int


@dataclass(frozen=True)
class Phase:
    """A stage while it trains."""

    span: Span
    chosen: Groups
    optimiser: torch.optim.Optimizer
    companion: Companion

    @property
    def stage(self) -> Stage:
        """What it carries out."""
        return self.span.stage

    @property
    def named(self) -> dict[str, nn.Parameter]:
        """Its parameters by name."""
        return {name: parameter for members in self.chosen.values() for name, parameter in members}


def spans(member: Member, steps: int) -> list[Span]:
    """The stages of a member, which share `steps` by their `share`."""
    whole = math.fsum(stage.share for stage in member.stages)
    edges = [round(math.fsum(stage.share for stage in member.stages[:i]) / whole * steps) for i in range(len(member.stages) + 1)]
    return [Span(stage, start, end) for stage, start, end in zip(member.stages, edges, edges[1:], strict=False)]


def trainable(model: UnifiedModel, stage: Stage) -> Groups:
    """The parameter groups that a stage trains; exactly their parameters require a gradient afterwards.

    Heads are those of the stage's tasks. What a module names in `never_trained` stays as it is. Raises ValueError for a
    pattern that fits nothing (a head or a router need not have parameters) and when nothing is left to train.
    """
    groups = model.groups()
    heads = {f"head:{task}" for task in stage.tasks}
    allowed = {group: members for group, members in groups.items() if members and (not group.startswith("head:") or group in heads)}
    chosen = {group: members for group, members in allowed.items() if any(fnmatch.fnmatch(group, pattern) for pattern in stage.trains)}
    for pattern in stage.trains:
        if pattern not in ("head:*", "router") and not any(fnmatch.fnmatch(group, pattern) for group in chosen):
            raise ValueError(f"stage {stage.name!r} trains {pattern!r}, which is none of {sorted(groups)}")
    frozen = {id(parameter) for module in model.modules() for parameter in getattr(module, "never_trained", ())}
    ids = {id(parameter) for members in chosen.values() for _, parameter in members} - frozen
    if not ids:
        raise ValueError(f"stage {stage.name!r} trains {stage.trains}, in which this model has no parameters")
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in ids)
    return chosen


def trained(model: UnifiedModel, member: Member) -> dict[str, nn.Parameter]:
    """Every parameter that some stage of the member trains, by name. Leaves the model as its last stage wants it."""
    found: dict[str, nn.Parameter] = {}
    for stage in member.stages:
        for members in trainable(model, stage).values():
            found |= {name: parameter for name, parameter in members if parameter.requires_grad}
    return found


def make_optimiser(chosen: Groups, optim: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the groups, each at the learning rate of its part of the model."""
    parts: dict[str, Literal["experts", "router", "heads", "backbone"]] = {
        "expert": "experts",
        "bank": "experts",
        "router": "router",
        "head": "heads",
        "backbone": "backbone",
    }
    groups = []
    for group, members in chosen.items():
        rate = optim.rate(parts[group.partition(":")[0]])
        groups.append({"params": [parameter for _, parameter in members], "lr": rate, "full": rate, "name": group})
    return torch.optim.AdamW(groups, weight_decay=optim.weight_decay)


def rate_factor(optim: OptimConfig, step: int, steps: int) -> float:
    """What the learning rates are multiplied by at `step` (from 0) of a stage's `steps`: a linear rise, then the schedule."""
    warm = max(round(optim.warmup * steps), 1)
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(steps - warm, 1)
    return {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[optim.schedule]


def set_rates(optimiser: torch.optim.Optimizer, factor: float) -> Mapping[str, float]:
    """Sets every group's learning rate to `factor` of its full one; returns the rates by group."""
    for group in optimiser.param_groups:
        group["lr"] = group["full"] * factor
    return {group["name"]: float(group["lr"]) for group in optimiser.param_groups}
