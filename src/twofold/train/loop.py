"""`fit`: the only training loop. Every optimiser step carries one batch of every task of the stage."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from twofold.config import OptimConfig, TaskConfig
from twofold.data.mixing import ExampleSource
from twofold.errors import TrainingStopped
from twofold.methods import Gradients, Member, Stage
from twofold.model.unified import UnifiedModel
from twofold.tasks import StepContext, StepResult, Task, World
from twofold.train.stages import Groups, make_optimiser, rate_factor, set_rates, spans, trainable


@dataclass(frozen=True)
class StepReport:
    """What one optimiser step did, over all processes; a line of the log. It holds no times, so that equal runs write equal logs."""

    step: int
    stage: str
    loss: Mapping[str, float]
    norm: Mapping[str, float]
    """Gradient norm of each group before clipping."""
    rate: Mapping[str, float]
    tokens: int
    truncated: int


@dataclass(frozen=True)
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
    """The best mean on dev so far."""
    stale: int = 0
    """Looks at dev since then."""
    stopped: bool = False
    """Ended early for lack of progress on dev."""
    tokens: int = 0
    truncated: int = 0
    log_bytes: int = 0


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


@dataclass(frozen=True)
class Setup:
    """What stays the same over all steps of one member's training."""

    model: UnifiedModel
    member: Member
    sources: Mapping[str, ExampleSource]
    """Task → where its examples come from."""
    tasks: Mapping[str, TaskConfig]
    optim: OptimConfig
    seed: int
    accelerator: Accelerator

    @property
    def world(self) -> World:
        """The processes that train together."""
        size = self.accelerator.num_processes
        return World(self.accelerator.process_index, size, self.accelerator.gather) if size > 1 else World()


def fit(setup: Setup, state: LoopState, hooks: Hooks) -> LoopState:
    """Trains the model through the member's stages, from `state` on, and leaves it in eval mode. Raises TrainingStopped as said there."""
    model, steps = setup.model, setup.optim.steps
    begun, first, tokens = time.monotonic(), state.step, state.tokens
    model.train()
    try:
        with stop_signals() as asked:
            for stage, start, end in spans(setup.member, steps):
                if state.step >= end or state.stopped:
                    continue
                chosen = trainable(model, stage)
                optimiser = make_optimiser(chosen, setup.optim)
                hooks.resume(stage, optimiser)
                while state.step < end and not state.stopped:
                    factor = rate_factor(setup.optim, state.step - start, end - start)
                    report = _step(setup, stage, chosen, optimiser, state.step, factor)
                    state.step += 1
                    state.tokens += report.tokens
                    state.truncated += report.truncated
                    if stage.after_step is not None:
                        stage.after_step(model, state.step)
                    hooks.after_step(state, report, optimiser)
                    hooks.progress(Progress(state.step - first, steps - first, state.tokens - tokens, time.monotonic() - begun, report))
                    if any(_summed([len(asked)], setup.accelerator)):
                        hooks.save(state, optimiser)
                        reason = asked[0] if asked else "a signal to another process"
                        raise TrainingStopped(f"stopped by {reason} after step {state.step}; start it again with --resume")
    finally:
        model.eval()
    return state


def _step(setup: Setup, stage: Stage, chosen: Groups, optimiser: torch.optim.Optimizer, step: int, factor: float) -> StepReport:
    """One batch of every task of the stage, forward and backward; then one update of the weights."""
    rate = set_rates(optimiser, factor)
    results = _gradients(setup, stage, {name: parameter for members in chosen.values() for name, parameter in members}, step)
    sums = [sum(result.tokens for result in results.values()), sum(result.truncated for result in results.values())]
    tokens, truncated, *losses = _summed([*sums, *(result.loss for result in results.values())], setup.accelerator)
    loss = {task: value / setup.accelerator.num_processes for task, value in zip(results, losses, strict=True)}
    for task, value in loss.items():
        if not math.isfinite(value):
            raise TrainingStopped(f"step {step + 1}: the {task} loss is {value}; lower optim.lr, or look at the batch of this step")
    norm = {}
    for group, members in chosen.items():
        norm[group] = float(torch.nn.utils.clip_grad_norm_([parameter for _, parameter in members], setup.optim.clip))
        if not math.isfinite(norm[group]):
            raise TrainingStopped(
                f"step {step + 1}: the gradient of {group} is not finite; lower optim.lr. Nothing of this step was applied"
            )
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return StepReport(step + 1, stage.name, loss, norm, rate, int(tokens), int(truncated))


def _gradients(setup: Setup, stage: Stage, named: Mapping[str, nn.Parameter], step: int) -> dict[str, StepResult]:
    """Leaves in `.grad` the tasks' gradients over all processes, combined as the stage says."""
    results: dict[str, StepResult] = {}
    kept: list[Gradients] = []
    for task in stage.tasks:
        results[task] = _task_step(setup, stage, task, step)
        if stage.combine is not None:
            sum_gradients(list(named.values()), setup.accelerator)
            kept.append({name: parameter.grad for name, parameter in named.items() if parameter.grad is not None})
            for parameter in named.values():
                parameter.grad = None
    if stage.combine is None:
        sum_gradients(list(named.values()), setup.accelerator)
    else:
        for name, gradient in stage.combine(kept).items():
            named[name].grad = gradient
    return results


def _task_step(setup: Setup, stage: Stage, task: str, step: int) -> StepResult:
    settings, world, module = setup.tasks[task], setup.world, setup.model.tasks[task]
    assert isinstance(module, Task)
    examples = setup.sources[task].batch(task, step, settings.batch, settings.negatives, setup.seed, world.rank, world.size)
    context = StepContext(
        setup.model.encoder,
        setup.accelerator.backward,
        world,
        token_budget=setup.optim.token_budget,
        weight=settings.weight,
        auxiliary=stage.auxiliary,
    )
    return module.step(examples, context)


def sum_gradients(parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> None:
    """Adds every parameter's gradient over all processes; one that a process did not use counts as zero there, so none can fail.

    What no process used keeps no gradient, as when training alone.
    """
    if accelerator.num_processes == 1:
        return
    used = [parameter for parameter in parameters if parameter.requires_grad]
    parts = [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in used]
    present = torch.tensor([float(parameter.grad is not None) for parameter in used], device=accelerator.device)
    flat = accelerator.reduce(torch.cat([present, *(part.flatten().float() for part in parts)]), reduction="sum")
    anywhere, *pieces = flat.split([len(used), *(parameter.numel() for parameter in used)])
    for parameter, count, piece in zip(used, anywhere.tolist(), pieces, strict=True):
        parameter.grad = piece.view_as(parameter).to(parameter.dtype) if count else None


def _summed(values: Sequence[float], accelerator: Accelerator) -> list[float]:
    """The sums of numbers over all processes."""
    if accelerator.num_processes == 1:
        return list(values)
    total: list[float] = accelerator.reduce(torch.tensor(values, dtype=torch.float64, device=accelerator.device), reduction="sum").tolist()
    return total


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
