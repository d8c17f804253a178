"""`fit`: the only training loop. Every optimiser step carries one batch of every task of the stage."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from twofold.config import OptimConfig, TaskConfig
from twofold.data.mixing import ExampleSource
from twofold.errors import TrainingInterrupted, TrainingStopped
from twofold.methods import Gradients, Member
from twofold.model.unified import UnifiedModel
from twofold.tasks import RoutingLoss, StepContext, StepResult, Task, World
from twofold.train.stages import Phase, Span, make_optimiser, rate_factor, set_rates, spans, trainable


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

    after_step: Callable[[LoopState, StepReport, Phase], None]
    """Log, look at dev, save: after every step."""
    resume: Callable[[Phase], None]
    """Puts the saved states of optimiser and companion back, at the start of the stage that they belong to."""
    save: Callable[[LoopState, Phase], None]
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
            for span in spans(setup.member, steps):
                if state.step >= span.end or state.stopped:
                    continue
                phase = _begin(setup, span)
                hooks.resume(phase)
                while state.step < span.end and not state.stopped:
                    report = _step(setup, phase, state.step)
                    state.step += 1
                    state.tokens += report.tokens
                    state.truncated += report.truncated
                    if span.stage.after_step is not None:
                        span.stage.after_step(model, state.step)
                    phase.companion.after_step(state.step - span.start, partial(_losses_again, setup, phase, state.step - 1))
                    hooks.after_step(state, report, phase)
                    hooks.progress(Progress(state.step - first, steps - first, state.tokens - tokens, time.monotonic() - begun, report))
                    if any(_summed([len(asked)], setup.accelerator)):
                        hooks.save(state, phase)
                        reason = asked[0] if asked else "a signal to another process"
                        raise TrainingInterrupted(f"stopped by {reason} after step {state.step}; start it again with --resume")
    finally:
        model.eval()
    return state


def _begin(setup: Setup, span: Span) -> Phase:
    """Makes the stage's parameters, and only them, learn, and gives it a fresh optimiser and companion."""
    chosen = trainable(setup.model, span.stage)

    def total(tensor: Tensor) -> Tensor:
        summed: Tensor = setup.accelerator.reduce(tensor, reduction="sum") if setup.accelerator.num_processes > 1 else tensor
        return summed

    companion = span.stage.companion(span.stage, setup.model, span.end - span.start, total)
    return Phase(span, chosen, make_optimiser(chosen, setup.optim), companion)


def _step(setup: Setup, phase: Phase, step: int) -> StepReport:
    """One batch of every task of the stage, forward and backward; then one update of the weights."""
    start, end = phase.span.start, phase.span.end
    rate = set_rates(phase.optimiser, rate_factor(setup.optim, step - start, end - start))
    results, kept = _gradients(setup, phase, step)
    sums = [sum(result.tokens for result in results.values()), sum(result.truncated for result in results.values())]
    tokens, truncated, *losses = _summed([*sums, *(result.loss for result in results.values())], setup.accelerator)
    loss = {task: value / setup.accelerator.num_processes for task, value in zip(results, losses, strict=True)}
    for task, value in loss.items():
        if not math.isfinite(value):
            raise TrainingStopped(f"step {step + 1}: the {task} loss is {value}; lower optim.lr, or look at the batch of this step")
    if phase.companion.combines:
        named = phase.named
        for name, gradient in phase.companion.combine(kept, loss).items():
            named[name].grad = gradient
    norm = {}
    for group, members in phase.chosen.items():
        norm[group] = float(torch.nn.utils.clip_grad_norm_([parameter for _, parameter in members], setup.optim.clip))
        if not math.isfinite(norm[group]):
            raise TrainingStopped(
                f"step {step + 1}: the gradient of {group} is not finite; lower optim.lr. Nothing of this step was applied"
            )
    phase.optimiser.step()
    phase.optimiser.zero_grad(set_to_none=True)
    return StepReport(step + 1, phase.stage.name, loss, norm, rate, int(tokens), int(truncated))


def _gradients(setup: Setup, phase: Phase, step: int) -> tuple[dict[str, StepResult], dict[str, Gradients]]:
    """Leaves in `.grad` the sum of the tasks' gradients over all processes; or gives each task's, where they are to be combined."""
    results: dict[str, StepResult] = {}
    kept: dict[str, Gradients] = {}
    named = phase.named

    def backward(loss: Tensor) -> None:
        if loss.requires_grad:  # not where nothing learns of what the task reaches, such as retrieval with all experts frozen
            setup.accelerator.backward(loss)

    for task in phase.stage.tasks:
        results[task] = _task_step(setup, task, step, backward, phase.companion.auxiliary(task))
        if phase.companion.combines:
            sum_gradients(list(named.values()), setup.accelerator)
            kept[task] = {name: parameter.grad for name, parameter in named.items() if parameter.grad is not None}
            for parameter in named.values():
                parameter.grad = None
    if not phase.companion.combines:
        sum_gradients(list(named.values()), setup.accelerator)
    return results, kept


def _task_step(setup: Setup, task: str, step: int, backward: Callable[[Tensor], None], auxiliary: RoutingLoss | None = None) -> StepResult:
    settings, world, module = setup.tasks[task], setup.world, setup.model.tasks[task]
    assert isinstance(module, Task)
    examples = setup.sources[task].batch(task, step, settings.batch, settings.negatives, setup.seed, world.rank, world.size)
    context = StepContext(
        setup.model.encoder, backward, world, token_budget=setup.optim.token_budget, weight=settings.weight, auxiliary=auxiliary
    )
    return module.step(examples, context)


def _losses_again(setup: Setup, phase: Phase, step: int) -> dict[str, float]:
    """The tasks' losses on the batches of `step` at the present weights, over all processes; nothing goes backward."""
    tasks = phase.stage.tasks
    losses = _summed([_task_step(setup, task, step, lambda _: None).loss for task in tasks], setup.accelerator)
    return {task: value / setup.accelerator.num_processes for task, value in zip(tasks, losses, strict=True)}


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
