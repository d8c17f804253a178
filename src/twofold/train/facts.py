"""The facts of a training: what a result or a model card may say about how a system was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from twofold import provenance
from twofold.config import TrialConfig
from twofold.methods import Member
from twofold.model.folder import manifest_sha256
from twofold.model.unified import UnifiedModel
from twofold.train.loop import LoopState
from twofold.train.material import Material
from twofold.train.stages import spans


@dataclass(frozen=True)
class Trained:
    """One member of the method, made and, if it has stages, trained."""

    member: Member
    model: UnifiedModel
    state: LoopState | None
    learnt: Mapping[str, nn.Parameter] = field(default_factory=dict)
    """What its stages trained, by name; not all of it need be there still, where the member changed the model afterwards."""


def facts_of(config: TrialConfig, parts: list[Trained], data: Material, seconds: float) -> dict[str, Any]:
    """Method, settings, training (None where there was none), parameters by task and group, environment: only what was set or measured."""
    before = {task: steps_of(config, part, (task,)) for part in parts if part.state for task in part.member.learns}
    states = {part.member.name: part.state for part in parts if part.state is not None}
    train = {
        "steps": {task: steps_of(config, part, part.member.serves) for part in parts if part.state for task in part.member.serves},
        **({"before": before} if before else {}),
        "data": {task: source.sha256 for task, source in data.sources.items()},
        "datasets": list(data.datasets),
        "batch": {task: settings.batch for task, settings in config.tasks.items()},
        "negatives": {task: settings.negatives for task, settings in config.tasks.items()},
        "lr": {part: config.optim.rate(part) for part in ("experts", "router", "heads", "backbone")},
        "seed": config.seed,
        "tokens": sum(state.tokens for state in states.values()),
        "truncated": sum(state.truncated for state in states.values()),
        "seconds": round(seconds, 1),
        "parameters": count_parameters(parts),
    }
    return {
        "name": config.name,
        "method": config.method.name,
        "options": dict(config.method.options),
        "config": config.model_dump(mode="json"),
        "train": train if states else None,
        **({"start": {"path": config.start, "manifest": manifest_sha256(config.start)}} if config.start else {}),
        "parameters": {
            task: {group: sum(p.numel() for _, p in members) for group, members in part.model.groups().items()}
            for part in parts
            for task in part.member.serves
        },
        "environment": provenance.environment(),
    }


def steps_of(config: TrialConfig, part: Trained, tasks: Sequence[str]) -> int:
    """Optimiser steps of the stages that learn some of `tasks`: what came before them, such as a language model's, is told apart."""
    done = 0 if part.state is None else part.state.step
    own = [span for span in spans(part.member, config.optim.steps) if {*span.stage.tasks} & {*tasks}]
    return sum(max(min(span.end, done) - span.start, 0) for span in own)


def count_parameters(parts: list[Trained]) -> dict[str, Any]:
    """`total` in memory, `trainable` in any stage, and `active`: task → those of them that the task's passes use."""
    learnt = [(part, {id(p): p for p in part.learnt.values()}) for part in parts]
    active = {}
    for part, own in learnt:
        for task in part.member.serves:
            seen = part.model.spec.plan.roster((task,)).visible((task,))
            skip = {f"expert:{expert.name}" for expert in part.model.spec.plan.experts if expert.name not in seen}
            skip |= {f"head:{other}" for other in part.member.serves if other != task}
            used = [p for group, members in part.model.groups().items() if group not in skip for _, p in members]
            active[task] = sum(p.numel() for p in used if id(p) in own)
    total = sum(p.numel() for part in parts for p in part.model.parameters())
    return {"total": total, "trainable": sum(p.numel() for _, own in learnt for p in own.values()), "active": active}
