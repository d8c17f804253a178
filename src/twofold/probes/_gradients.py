"""Gradients of tasks on batches of their own, and the parameters that the tasks share."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from twofold.config import TASKS, TaskConfig
from twofold.core.inject import block_of
from twofold.core.routing import generator
from twofold.data.labelled import LabelledDataset, LabelledSet
from twofold.data.mixing import ExampleSource, TrainingSet
from twofold.data.sources import Dataset
from twofold.errors import ConfigError
from twofold.mining import mine
from twofold.model.system import System
from twofold.model.unified import UnifiedModel
from twofold.nearest import unknown
from twofold.probes import AnyDataset
from twofold.probes._looking import layers_of
from twofold.probes._material import chosen, label_tasks, split_of, tokens_of
from twofold.records import Example
from twofold.tasks import Encoder, StepContext, Task, kind_of, reads, variant_of

SHARED = ("expert:*", "bank", "router")
TOKENS, MOST, DEPTH = 4096, 1 << 16, 20
Gradients = dict[str, Tensor]
"""Parameter name → gradient, flat."""


class Part(NamedTuple):
    """Where a parameter belongs."""

    layer: str
    slice: str
    """Its group: expert:NAME, bank, router or backbone."""
    matrix: str
    """a, b, or what else it is called in its bank, router or layer."""


@dataclass(frozen=True)
class Learners:
    """A model, tasks, and for each of them equally many batches; no query is in two batches."""

    model: UnifiedModel
    batches: Mapping[str, Sequence[Sequence[Any]]]
    length: int

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks."""
        return tuple(self.batches)

    @property
    def rounds(self) -> int:
        """Batches of each task."""
        return min(len(each) for each in self.batches.values())

    def step(self, task: str, number: int, backward: Any) -> float:
        """The task's loss on one of its batches; `backward` is called with what goes backward."""
        module, model = self.model.tasks[task], self.model
        assert isinstance(module, Task)
        encoder = Encoder(model.backbone, tokens_of(model, self.length))
        return module.step(self.batches[task][number], StepContext(encoder, backward, token_budget=TOKENS)).loss


def learners(
    system: System,
    dataset: Dataset,
    beside: Sequence[AnyDataset],
    split: str,
    queries: int,
    batch: int,
    tasks: tuple[str, ...],
    length: int,
    seed: int,
    notes: list[str],
) -> Learners:
    """Batches from at most so many queries of a split, with BM25's hard negatives as in training; labelled texts from `beside`.

    `tasks`: all that have data, where none is named. Raises ConfigError for two specialists, which share nothing, for a task that there is
    not or has no data, for fewer than two tasks, and for fewer than two batches of each.
    """
    model = system.embedder
    if len(system.models) > 1:
        raise ConfigError("two specialists share no parameters, so their tasks cannot be in conflict")
    kinds = _data_of(model, dataset, beside, system.variant, notes)
    if strange := [task for task in tasks if task not in kinds]:
        raise ConfigError(f"{unknown('task', strange[0], kinds)} (or it has no data here: name its dataset, too)")
    kinds = {task: kinds[task] for task in tasks or kinds}
    if len(kinds) < 2:
        raise ConfigError(f"only {', '.join(kinds) or 'no task'} has data here, and two tasks are needed")
    ranking = [task for task, data in kinds.items() if isinstance(data, Dataset)]
    sources: dict[str, tuple[ExampleSource, int, int]] = {}
    if ranking:
        small = chosen(dataset, split, queries)
        source = TrainingSet(small, mine(small, split, depth=DEPTH).negatives, split)
        sources = {task: (source, i, len(ranking)) for i, task in enumerate(ranking)}
    for task, data in kinds.items():
        if isinstance(data, LabelledDataset):
            sources[task] = (LabelledSet(data, split_of(data, split, notes)), 0, 1)
    rounds = min(min(queries, len(source)) // (batch * among) for source, _, among in sources.values())
    if rounds < 2:
        sizes = {task: len(source) for task, (source, _, _) in sources.items()}
        raise ConfigError(
            f"{sizes} queries and texts of {split}, of which {queries} at most: fewer than two batches of {batch} for each task"
        )
    found = {task: [_batch(task, *sources[task], i, batch, seed) for i in range(rounds)] for task in kinds}
    notes.append(f"{rounds} batches of {batch} for each of {', '.join(kinds)} from {split}")
    return Learners(model, found, length)


def _batch(task: str, source: ExampleSource, place: int, among: int, number: int, size: int, seed: int) -> list[Any]:
    """Tasks on the same queries take turns in one order of them, so that no query is in two batches."""
    negatives = TaskConfig(**TASKS.get(kind_of(task), {})).negatives  # type: ignore[arg-type]
    return source.batch("probe" if among > 1 else task, number * among + place, size, negatives, seed)


def _data_of(model: UnifiedModel, dataset: Dataset, beside: Sequence[AnyDataset], variant: str, notes: list[str]) -> dict[str, AnyDataset]:
    """Task → the dataset that it may learn from here."""
    found: dict[str, AnyDataset] = {}
    for task in model.tasks:
        if kind_of(task) == "answer" and not dataset.answers:
            notes.append(f"{dataset.name} has no answers to learn from, so {task} is left out")
        elif reads(task) is Example and (kind_of(task) not in ("retrieve", "rerank") or variant_of(task) == variant):
            found[task] = dataset
    for one in beside:
        if isinstance(one, LabelledDataset):
            found |= dict.fromkeys(label_tasks(model, one), one)
        else:
            notes.append(f"{one.name}: gradients are taken on {dataset.name} only")
    return found


def shared_parameters(model: UnifiedModel, trains: Sequence[str] = ()) -> dict[str, tuple[Part, nn.Parameter]]:
    """Name → (part, parameter) of the groups that match `trains`: experts, what a bank shares and routers, or else the backbone.

    Raises ConfigError where nothing matches.
    """
    groups = {group: members for group, members in model.groups().items() if members and not group.startswith("head:")}
    wanted = trains or (SHARED if any(fnmatch.fnmatch(group, pattern) for group in groups for pattern in SHARED) else ("backbone",))
    kept = {group: members for group, members in groups.items() if any(fnmatch.fnmatch(group, pattern) for pattern in wanted)}
    if not kept:
        raise ConfigError(f"no parameters match {list(wanted)}; there is {', '.join(groups)}")
    layers = [layer.layer for layer in layers_of(model)]
    return {name: (part_of(name, group, layers), parameter) for group, members in kept.items() for name, parameter in members}


def part_of(name: str, group: str, layers: Sequence[str]) -> Part:
    """The part of a parameter: `encoder.layer.0.output.dense.bank.b.shared` → (that layer, expert:shared, b)."""
    layer = next((layer for layer in layers if name.startswith(f"{layer}.")), "")
    if layer and group != "backbone":
        return Part(layer, group, name.removeprefix(f"{layer}.").split(".")[1])
    where, _, matrix = name.rpartition(".")
    return Part(where if block_of(name) else where or name, group, matrix)


@contextmanager
def learning(model: UnifiedModel, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Only these parameters require a gradient for a while; gradients and the mode of the model are afterwards as they were."""
    every, own, training = list(model.parameters()), {id(parameter) for parameter in parameters}, model.training
    kept = [(parameter, parameter.requires_grad, parameter.grad) for parameter in every]
    try:
        model.eval()
        for parameter in every:
            parameter.grad = None
            parameter.requires_grad_(id(parameter) in own)
        yield
    finally:
        model.train(training)
        for parameter, required, gradient in kept:
            parameter.requires_grad_(required)
            parameter.grad = gradient


def gradient(one: Learners, task: str, number: int, parameters: Mapping[str, nn.Parameter]) -> Gradients:
    """The gradient of a task's loss on one of its batches; a parameter that it does not use is not there. Inside `learning`."""
    one.step(task, number, lambda loss: loss.backward() if loss.requires_grad else None)
    found = {name: parameter.grad.detach().flatten() for name, parameter in parameters.items() if parameter.grad is not None}
    for parameter in parameters.values():
        parameter.grad = None
    return found


def drawn(name: str, flat: Tensor, seed: int) -> Tensor:
    """At most `MOST` entries of a gradient, the same for every batch: enough for a cosine to two digits, and bounded memory."""
    if len(flat) <= MOST:
        return flat.float().cpu()
    return flat[torch.randint(len(flat), (MOST,), generator=generator(seed, name)).to(flat.device)].float().cpu()
