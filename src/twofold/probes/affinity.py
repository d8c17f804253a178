"""Does a step for one task help another? Task affinity by looking one step ahead (Fifty et al. 2021, arXiv 2109.04617).

    Z_i→j = 1 − L_j(θ − η ∇L_i) / L_j(θ)

the share of task j's loss that a step for task i takes away (above 0: it helps; below 0: it harms), mean over rounds. Two things
differ from the paper: ∇L_i and L_j come from batches of different queries, also for i = j, so that Z_j→j is what a step for the task itself
brings on unseen queries and the reference for the others; and η is such that every step moves the shared parameters by the same
share of their own norm, so that a task does not look helpful for having a large gradient. Only shared parameters move, no head.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from twofold.data.sources import Dataset
from twofold.errors import ConfigError
from twofold.model.system import System
from twofold.probes import AnyDataset, Progress, Report, Row, quiet
from twofold.probes._gradients import Gradients, Learners, gradient, learners, learning, shared_parameters
from twofold.probes._material import LENGTH
from twofold.probes._numbers import Floats, interval, percent, rounded

UNITS = {
    "affinity": "Z, the share of the loss of `to` that one step for `of` takes away; low, high: 95 % bootstrap interval over rounds",
    "of_own": "affinity as a share of what the task's own step brings, whole percent; None where its own brings nothing certain",
    "loss": "mean loss of the task before any step",
}


def run(
    system: System,
    dataset: Dataset,
    *,
    split: str = "train",
    queries: int = 192,
    beside: Sequence[AnyDataset] = (),
    seed: int = 0,
    progress: Progress = quiet,
    batch: int = 8,
    tasks: tuple[str, ...] = (),
    trains: tuple[str, ...] = (),
    step: float = 0.01,
    length: int = LENGTH,
) -> Report:
    """`step`: how far a step goes, as a share of the norm of what moves; the rest as for `conflict`. A round takes two batches of each
    task. Raises ConfigError for a step that is not above 0, and for fewer than two rounds."""
    if not step > 0:
        raise ConfigError(f"affinity: a step of {step}; it is above 0")
    notes: list[str] = []
    one = learners(system, dataset, beside, split, queries, batch, tasks, length, seed, notes)
    rounds = one.rounds // 2
    if rounds < 2:
        raise ConfigError(f"affinity: {one.rounds} batches for each task make {rounds} rounds, and two are needed: ask for more queries")
    parameters = {name: parameter for name, (_, parameter) in shared_parameters(one.model, trains).items()}
    before: dict[str, list[float]] = {task: [] for task in one.tasks}
    found: dict[tuple[str, str], list[float]] = {(of, to): [] for of, to in itertools.product(one.tasks, repeat=2)}
    with learning(one.model, list(parameters.values())):
        for i in range(rounds):
            own = {task: _loss(one, task, 2 * i + 1) for task in one.tasks}
            for task in one.tasks:
                before[task].append(own[task])
                with moved(parameters, gradient(one, task, 2 * i, parameters), step):
                    for other in one.tasks:
                        found[task, other].append(1 - _loss(one, other, 2 * i + 1) / own[other])
            progress("rounds", i + 1, rounds)
    rows = _rows({pair: np.array(values) for pair, values in found.items()}, seed)
    losses: list[Row] = [{"task": task, "loss": rounded(float(np.mean(values)))} for task, values in before.items()]
    facts: Row = {"rounds": rounds, "batch": batch, "step": step}
    facts |= {f"{row['of']}→{row['to']}": row["affinity"] for row in rows}
    return {"facts": facts, "tables": {"affinity": rows, "losses": losses}, "units": UNITS, "notes": notes}


@contextmanager
def moved(parameters: Mapping[str, nn.Parameter], gradients: Gradients, step: float) -> Iterator[None]:
    """The parameters one step against the gradient for a while: by `step` times the norm of all that have a gradient, together."""
    kept = {name: parameters[name].detach().clone() for name in gradients}
    size = sum(float(tensor.square().sum()) for tensor in kept.values()) ** 0.5
    steep = sum(float(flat.square().sum()) for flat in gradients.values()) ** 0.5
    try:
        with torch.no_grad():
            for name, flat in gradients.items() if steep else ():
                parameters[name].sub_(flat.view_as(parameters[name]) * (step * size / steep))
        yield
    finally:
        with torch.no_grad():
            for name, tensor in kept.items():
                parameters[name].copy_(tensor)


def _loss(one: Learners, task: str, number: int) -> float:
    """With its graph and nothing backward: a task may need gradients inside its step."""
    return one.step(task, number, lambda _: None)


def _rows(found: Mapping[tuple[str, str], Floats], seed: int) -> list[Row]:
    bounds = {pair: interval(partial(_mean, value_R), len(value_R), seed) for pair, value_R in found.items()}
    rows: list[Row] = []
    for (of, to), value_R in found.items():
        low, high = bounds[of, to]
        own = float(found[to, to].mean()) if bounds[to, to][0][0] > 0 else 0.0
        row: Row = {"of": of, "to": to, "affinity": rounded(float(value_R.mean())), "low": rounded(low[0]), "high": rounded(high[0])}
        rows.append({**row, "of_own": percent(float(value_R.mean()), own)})
    return rows


def _mean(value_R: Floats, at: NDArray[np.int64]) -> Floats:
    found: Floats = value_R[at].mean(keepdims=True)
    return found
