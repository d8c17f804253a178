"""`fit`: the only training loop. Every optimiser step carries one batch of every task of the stage."""

from __future__ import annotations

import fnmatch
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from twofold.config import OptimConfig, TaskConfig
from twofold.data.mixing import ExampleSource
from twofold.errors import TwofoldError
from twofold.methods import Member, Stage
from twofold.model.unified import UnifiedModel
from twofold.tasks import Task, World


class TrainingStopped(TwofoldError, RuntimeError):
    """Training ended before its last step: the loss was not a number, or the process was asked to stop. The last good checkpoint stands."""


@dataclass(frozen=True)
class StepReport:
    """What one optimiser step did; a line of the log. It holds no times, so that equal runs write equal logs."""

    step: int
    stage: str
    loss: Mapping[str, float]
    norm: Mapping[str, float]
    """Gradient norm of each group before clipping."""
    rate: Mapping[str, float]
    tokens: int
    truncated: int


@dataclass
class Progress:
    """How far training is, and at what pace; for people only."""

    step: int
    steps: int
    tokens: int
    seconds: float
    report: StepReport

    @property
    def tokens_per_second(self) -> float:
        """Tokens with a gradient per second since this process began."""
        return self.tokens / max(self.seconds, 1e-9)

    @property
    def seconds_left(self) -> float:
        """At the present pace."""
        return self.seconds / max(self.step, 1) * (self.steps - self.step)


@dataclass
class LoopState:
    """What changes while training, besides weights: enough, with them, to go on bit for bit."""

    step: int = 0
    """Optimiser steps done, over all stages."""
    best: float = -math.inf
    stale: int = 0
    """Looks at dev since the best one."""
    stopped: bool = False
    """Ended early for lack of progress on dev."""
    tokens: int = 0
    log_bytes: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Hooks:
    """What happens around steps; each is called by every process."""

    after_step: Callable[[LoopState, StepReport, torch.optim.Optimizer], None]
    """Log, look at dev, save: after every step."""
    resume: Callable[[Stage, torch.optim.Optimizer], None]
    """Puts a saved optimiser state back, at the start of the stage that it belongs to."""
    save: Callable[[LoopState, torch.optim.Optimizer], None]
    """Writes a checkpoint now: the process is about to be stopped."""
    progress: Callable[[Progress], None] = lambda _: None


def fit(
    model: UnifiedModel,
    member: Member,
    sources: Mapping[str, ExampleSource],
    tasks: Mapping[str, TaskConfig],
    optim: OptimConfig,
    seed: int,
    accelerator: Accelerator,
    state: LoopState,
    hooks: Hooks,
) -> LoopState:
    """Trains `model` through the member's stages, from `state` on. Raises TrainingStopped as said there."""
    world = World(accelerator.process_index, accelerator.num_processes, accelerator.gather if accelerator.num_processes > 1 else World.gather)
    ends = stage_ends(member, optim.steps)
    begun, first = time.monotonic(), state.step
    tokens_before = state.tokens
    model.train()
    with stop_signals() as asked:
        for stage, start, end in ends:
            if state.step >= end or state.stopped:
                continue
            chosen = trainable(model, stage)
            optimiser, schedule = _optimiser(chosen, optim, end - start)
            hooks.resume(stage, optimiser)
            for _ in range(state.step - start):
                schedule.step()
            while state.step < end and not state.stopped:
                report = _step(model, stage, chosen, sources, tasks, optim, seed, accelerator, world, state.step, optimiser)
                schedule.step()
                state.step += 1
                state.tokens += report.tokens
                if stage.after_step is not None:
                    stage.after_step(model, state.step)
                hooks.after_step(state, report, optimiser)
                hooks.progress(Progress(state.step - first, ends[-1][2] - first, state.tokens - tokens_before, time.monotonic() - begun, report))
                if asked and state.step < ends[-1][2]:
                    hooks.save(state, optimiser)
                    raise TrainingStopped(f"stopped by signal {asked[0]} after step {state.step}; start it again with --resume")
    model.eval()
    return state


def stage_ends(member: Member, steps: int) -> list[tuple[Stage, int, int]]:
    """(stage, first step, step after the last) of a member whose stages share `steps`."""
    whole = sum(stage.share for stage in member.stages)
    ends, done = [], 0.0
    for stage in member.stages:
        start = round(done / whole * steps)
        done += stage.share
        ends.append((stage, start, round(done / whole * steps)))
    return ends


def trainable(model: UnifiedModel, stage: Stage) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """The parameter groups that a stage trains; exactly their parameters require a gradient afterwards. Raises ValueError for an unused pattern."""
    groups = model.groups()
    chosen = {group: members for group, members in groups.items() if members and any(fnmatch.fnmatch(group, pattern) for pattern in stage.trains)}
    heads = {f"head:{task}" for task in stage.tasks}
    chosen = {group: members for group, members in chosen.items() if not group.startswith("head:") or group in heads}
    for pattern in stage.trains:
        if pattern not in ("head:*", "router") and not any(fnmatch.fnmatch(group, pattern) for group in chosen):
            raise ValueError(f"stage {stage.name!r} trains {pattern!r}, which is none of {sorted(groups)}")
    ids = {id(parameter) for members in chosen.values() for _, parameter in members}
    frozen = {id(parameter) for layer in model.modules() for parameter in getattr(layer, "never_trained", ())}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in ids and id(parameter) not in frozen)
    return chosen


def _optimiser(chosen: Mapping[str, list[tuple[str, nn.Parameter]]], optim: OptimConfig, steps: int) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    def rate(group: str) -> float:
        part = {"expert": "experts", "head": "heads"}.get(group.partition(":")[0], group)
        return optim.rate(part)  # type: ignore[arg-type]

    groups = [{"params": [parameter for _, parameter in members], "lr": rate(group), "name": group} for group, members in chosen.items()]
    optimiser = torch.optim.AdamW(groups, weight_decay=optim.weight_decay)
    warm = max(round(optim.warmup * steps), 1)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        done = (step - warm) / max(steps - warm, 1)
        return {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[optim.schedule]

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def _step(
    model: UnifiedModel,
    stage: Stage,
    chosen: Mapping[str, list[tuple[str, nn.Parameter]]],
    sources: Mapping[str, ExampleSource],
    tasks: Mapping[str, TaskConfig],
    optim: OptimConfig,
    seed: int,
    accelerator: Accelerator,
    world: World,
    step: int,
    optimiser: torch.optim.Optimizer,
) -> StepReport:
    named = {name: parameter for members in chosen.values() for name, parameter in members}
    loss, tokens, truncated, kept = {}, 0, 0, []
    for task in stage.tasks:
        settings = tasks[task]
        examples = sources[task].batch(task, step, settings.batch, settings.negatives, seed, world.rank, world.size)
        module = model.tasks[task]
        assert isinstance(module, Task)
        result = module.step(
            model.encoder, examples, world=world, token_budget=optim.token_budget, weight=settings.weight, backward=accelerator.backward, auxiliary=stage.auxiliary
        )
        loss[task], tokens, truncated = result.loss, tokens + result.tokens, truncated + result.truncated
        if not math.isfinite(result.loss):
            raise TrainingStopped(f"step {step + 1}: the {task} loss is {result.loss}; lower optim.lr, or look at the batch of this step")
        if stage.combine is not None:
            kept.append({name: parameter.grad for name, parameter in named.items() if parameter.grad is not None})
            optimiser.zero_grad(set_to_none=True)
    if stage.combine is not None:
        for name, gradient in stage.combine(kept).items():
            named[name].grad = gradient
    if world.size > 1:
        sum_gradients(list(named.values()), accelerator)
    norm = {}
    for group, members in chosen.items():
        norm[group] = float(torch.nn.utils.clip_grad_norm_([parameter for _, parameter in members], optim.clip))
        if not math.isfinite(norm[group]):
            raise TrainingStopped(f"step {step + 1}: the gradient of {group} is not finite; lower optim.lr. Nothing of this step was applied")
    rate = {group["name"]: float(group["lr"]) for group in optimiser.param_groups}
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return StepReport(step + 1, stage.name, loss, norm, rate, tokens, truncated)


def sum_gradients(parameters: list[nn.Parameter], accelerator: Accelerator) -> None:
    """Adds every parameter's gradient over all processes; one that a process did not use counts as zero, so none can fail."""
    parts: list[Tensor] = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters if p.requires_grad]
    flat = torch.cat([part.flatten().float() for part in parts])
    flat = accelerator.reduce(flat, reduction="sum")
    used = [p for p in parameters if p.requires_grad]
    for parameter, piece in zip(used, flat.split([p.numel() for p in used]), strict=True):
        parameter.grad = piece.view_as(parameter).to(parameter.dtype)


@contextmanager
def stop_signals() -> Iterator[list[str]]:
    """A list that fills when the process is asked to stop (SIGTERM, SIGINT); a second signal ends it at once."""
    asked: list[str] = []

    def note(number: int, _: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(signal.Signals(number).name)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: signals are somebody else's
        yield asked
        return
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
