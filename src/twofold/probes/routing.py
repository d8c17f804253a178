"""What the router decides by: the task, the dataset, or the input itself; weights by layer, task, dataset and training step.

With g(x) an input's weights made to sum to 1 (the mean over its tokens where the routing is per token), ḡ a mean of them, H(g) the
entropy −Σ g ln g in nats, and all tasks counted the same, in a task all sides (queries, documents, pairs) and in a side all datasets:

    I(expert; task) = H(ḡ) − Σ_t p_t H(ḡ_t)               I(expert; dataset | task) = Σ_t p_t [H(ḡ_t) − Σ_d p_d H(ḡ_td)]
    I(expert; input | task) = Σ_t p_t [H(ḡ_t) − mean H(g(x))]

These are mutual informations of an expert drawn with the probabilities g. The first and the last add up to all that the routing says, so
the share of the first tells whether the router is the task id again. Effective experts are e^H. A null comes from permuting labels (of
tasks, or of datasets within a task) among inputs: what chance gives in so few. For the input it exists only where tokens decide (they are
dealt out to inputs anew): an input's own decision is known and not sampled, and chance adds nothing to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from twofold.core.layer import MixtureLinear
from twofold.data.sources import Dataset
from twofold.model.system import System
from twofold.model.unified import UnifiedModel
from twofold.probes import AnyDataset, Progress, Report, Row, quiet
from twofold.probes._looking import Weights, block_name, experts_of, layers_of, module_name, one_mixture, routing_of
from twofold.probes._material import LENGTH, Pass, all_passes
from twofold.probes._numbers import Floats, entropy, mean_of, rounded
from twofold.probes._snapshots import snapshots

Labels = NDArray[np.int64]
UNITS = {
    "weight": "mean share of the expert in the layer's routing, 0 to 1",
    "std": "its standard deviation over inputs",
    "entropy": "mean over inputs of H(g), nats; for token routing the mean over tokens",
    "effective_experts": "mean over inputs of e^H(g)",
    "task": "I(expert; task), nats",
    "task_null": "its mean under permuted tasks",
    "task_p": "share of permutations that reach it",
    "dataset": "I(expert; dataset | task), nats; None for one dataset",
    "side": "I(expert; query or document | task), nats",
    "input": "I(expert; input | task), nats",
    "input_null": "its mean when tokens are dealt out to inputs anew; None where inputs decide and chance adds nothing",
    "rest": "I(expert; input | task, side, dataset), nats",
    "task_share": "I(expert; task) of all information, 0 to 1: 1 is the task id again; None where the weights never differ",
    "task_variance": "share of the weights' variance over inputs that lies between tasks, 0 to 1",
}


class Inputs(NamedTuple):
    """All inputs of all passes in one layer. N inputs, E experts."""

    weight_NE: Floats
    entropy_N: Floats
    share_N: Floats
    """What each counts; they sum to 1."""
    task_N: Labels
    side_N: Labels
    dataset_N: Labels


def run(
    system: System,
    dataset: Dataset,
    *,
    split: str = "test",
    queries: int = 100,
    beside: Sequence[AnyDataset] = (),
    trial: str = "",
    seed: int = 0,
    progress: Progress = quiet,
    length: int = LENGTH,
    permutations: int = 100,
    snapshot_queries: int = 20,
) -> Report:
    """`length`: tokens of an input (0: the model's own); `permutations` of the nulls; `snapshot_queries`: with so many queries the
    weights at every checkpoint of the trial."""
    model, notes = one_mixture(system, "routing"), list[str]()
    passes = all_passes(system, dataset, beside, split, queries, notes, length)
    found = [routing_of(one, progress) for one in passes]
    layers = [layer for layer in found[0] if all(layer in each for each in found)]
    draw = np.random.default_rng(seed)
    rows: list[Row] = []
    for i, layer in enumerate(layers):
        inputs = _inputs(passes, [each[layer] for each in found])
        rows.append(_layer_row(layer, inputs, [each[layer] for each in found], draw, permutations))
        progress("layers", i + 1, len(layers))
    snaps = _snapshots(system, model, dataset, beside, split, snapshot_queries, trial, notes)
    tables = {"layers": rows, "weights": _weight_rows(passes, found, experts_of(model), layers), "steps": snaps}
    return {"facts": _facts(model, rows, passes), "tables": tables, "units": UNITS, "notes": notes}


def information(weight_NE: Floats, share_N: Floats, of_N: Labels, given_N: Labels) -> float:
    """I(expert; of | given) in nats: Σ_g p_g [H(ḡ_g) − Σ_o p(o | g) H(ḡ_go)], where input n counts `share_N[n]`."""
    return _mean_entropy(weight_NE, share_N, given_N) - _mean_entropy(weight_NE, share_N, given_N * (int(of_N.max()) + 1) + of_N)


def _mean_entropy(weight_NE: Floats, share_N: Floats, group_N: Labels) -> float:
    """Σ_g p_g H(ḡ_g)."""
    _, place_N = np.unique(group_N, return_inverse=True)
    p_G = np.bincount(place_N, share_N)
    total_GE: Floats = np.stack([np.bincount(place_N, share_N * weight_N) for weight_N in weight_NE.T], -1)
    return float((p_G * entropy(total_GE)).sum())


def permuted(draw: np.random.Generator, of_N: Labels, given_N: Labels) -> Labels:
    """The labels dealt out anew among the inputs of each group."""
    order = np.lexsort((draw.random(len(of_N)), given_N))
    dealt = np.empty_like(of_N)
    dealt[np.argsort(given_N, kind="stable")] = of_N[order]
    return dealt


def _inputs(passes: Sequence[Pass], weights: Sequence[Weights]) -> Inputs:
    """The inputs of all passes, each with what it counts: tasks the same, in a task sides, in a side datasets, in a dataset inputs."""
    tasks, sides, datasets = (list(dict.fromkeys(getattr(one, what) for one in passes)) for what in ("task", "side", "dataset"))
    share = []
    for one in passes:
        own = [other for other in passes if other.task == one.task]
        beside = [other for other in own if other.side == one.side]
        share.append(np.full(one.size, 1 / (len(tasks) * len({other.side for other in own}) * len(beside) * one.size)))

    def labels(known: list[str], what: str) -> Labels:
        return np.concatenate([np.full(one.size, known.index(getattr(one, what))) for one in passes])

    return Inputs(
        np.concatenate([each.weight_SE for each in weights]),
        np.concatenate([each.token_entropy_S for each in weights]),
        np.concatenate(share),
        labels(tasks, "task"),
        labels(sides, "side"),
        labels(datasets, "dataset"),
    )


def _layer_row(layer: str, one: Inputs, weights: Sequence[Weights], draw: np.random.Generator, permutations: int) -> Row:
    """All that is said of one layer."""
    g, p, none, each = one.weight_NE, one.share_N, np.zeros_like(one.task_N), np.arange(len(one.task_N))
    task, whole = information(g, p, one.task_N, none), information(g, p, each, none)
    inside = (one.task_N * 8 + one.side_N) * (int(one.dataset_N.max()) + 1) + one.dataset_N
    task_null = np.array([information(g, p, permuted(draw, one.task_N, none), none) for _ in range(permutations)])
    dataset: dict[str, float | None] = {"dataset": None, "dataset_null": None, "dataset_p": None}
    if len(np.unique(one.dataset_N)) > 1:
        found = information(g, p, one.dataset_N, one.task_N)
        strata = one.task_N * 8 + one.side_N
        null = np.array([information(g, p, permuted(draw, one.dataset_N, strata), one.task_N) for _ in range(permutations)])
        dataset = {"dataset": rounded(found), "dataset_null": rounded(null.mean()), "dataset_p": _p(found, null)}
    return {
        "layer": layer,
        "block": block_name(layer),
        "module": module_name(layer),
        "level": "token" if weights[0].token_TE is not None else "input",
        "entropy": rounded(float((p * one.entropy_N).sum())),
        "effective_experts": rounded(float((p * np.exp(one.entropy_N)).sum())),
        "task": rounded(task),
        "task_null": rounded(task_null.mean()),
        "task_p": _p(task, task_null),
        **dataset,
        "side": rounded(information(g, p, one.side_N, one.task_N)),
        "input": rounded(information(g, p, each, one.task_N)),
        "input_null": _input_null(one, weights, draw),
        "rest": rounded(information(g, p, each, inside)),
        "task_share": rounded(task / whole) if whole > 1e-9 else None,
        "task_variance": _variance_share(one),
    }


def _p(found: float, null: Floats) -> float | None:
    """(1 + permutations that reach the value) / (1 + permutations)."""
    return rounded((1 + int((null >= found - 1e-12).sum())) / (1 + len(null)))


def _input_null(one: Inputs, weights: Sequence[Weights], draw: np.random.Generator, times: int = 5) -> float | None:
    """I(expert; input | task) when every input has as many tokens as it has, but any tokens of its pass."""
    if any(each.token_TE is None for each in weights):
        return None
    values = []
    for _ in range(times):
        parts = []
        for each in weights:
            assert each.token_TE is not None and each.owner_T is not None
            size, owner_T = len(each.weight_SE), draw.permutation(each.owner_T)
            count_S = np.bincount(owner_T, minlength=size).clip(1)
            parts.append(np.stack([np.bincount(owner_T, weight_T, size) / count_S for weight_T in each.token_TE.T], -1))
        values.append(information(np.concatenate(parts), one.share_N, np.arange(len(one.task_N)), one.task_N))
    return rounded(float(np.mean(values)))


def _variance_share(one: Inputs) -> float | None:
    """η²: the variance of the tasks' mean weights over that of the inputs' weights, summed over experts."""
    mean_E = (one.share_N[:, None] * one.weight_NE).sum(0)
    total = (one.share_N[:, None] * (one.weight_NE - mean_E) ** 2).sum()
    between = 0.0
    for task in np.unique(one.task_N):
        own = one.task_N == task
        p = one.share_N[own].sum()
        between += p * (((one.share_N[own, None] * one.weight_NE[own]).sum(0) / p - mean_E) ** 2).sum()
    return rounded(between / total) if total > 1e-12 else None


def _weight_rows(
    passes: Sequence[Pass], found: Sequence[Mapping[str, Weights]], experts: Sequence[str], layers: Sequence[str]
) -> list[Row]:
    """The mean weight of every expert by layer, task, side and dataset."""
    rows: list[Row] = []
    for layer in layers:
        for one, each in zip(passes, found, strict=True):
            where: Row = {"layer": layer, "task": one.task, "side": one.side, "dataset": one.dataset}
            mean_E, std_E = each[layer].weight_SE.mean(0), each[layer].weight_SE.std(0)
            rows += [
                {**where, "expert": e, "weight": rounded(m), "std": rounded(s)} for e, m, s in zip(experts, mean_E, std_E, strict=True)
            ]
    return rows


def _snapshots(
    system: System,
    model: UnifiedModel,
    dataset: Dataset,
    beside: Sequence[AnyDataset],
    split: str,
    queries: int,
    trial: str,
    notes: list[str],
) -> list[Row]:
    """The mean weights at every checkpoint of the trial."""
    rows: list[Row] = []
    passes = all_passes(system, dataset, beside, split, queries, []) if trial and queries else []
    for step in snapshots(model, Path(trial), notes) if passes else ():
        found = [routing_of(one) for one in passes]
        own = _weight_rows(passes, found, experts_of(model), list(found[0]))
        rows += [{"step": step, **row} for row in own]
    return rows


def _told(layer: MixtureLinear) -> bool:
    """Whether the router has numbers of its own for tasks, or knows nothing else."""
    tasks = tuple(layer.roster.sees)
    named = any(name.rpartition(".")[2].startswith(f"{task}>") for name, _ in layer.router.named_parameters() for task in tasks)
    return named or any(layer.router.constant(task, layer.roster.visible((task,))) is not None for task in tasks)


def _facts(model: UnifiedModel, layers: Sequence[Row], passes: Sequence[Pass]) -> Row:
    """Means over the layers, and the tasks' share of the information in all of them together."""

    def mean(column: str) -> float | None:
        return mean_of(row[column] for row in layers)

    task, whole = mean("task") or 0.0, (mean("task") or 0.0) + (mean("input") or 0.0)
    columns = (
        "entropy",
        "effective_experts",
        "task",
        "task_null",
        "dataset",
        "dataset_null",
        "side",
        "input",
        "input_null",
        "rest",
        "task_variance",
    )
    return {
        "router": model.spec.plan.router,
        "told_the_task": any(_told(layer) for layer in layers_of(model)),
        "experts": len(model.spec.plan.experts),
        "inputs": sum(one.size for one in passes),
        **{column: mean(column) for column in columns},
        "task_share": rounded(task / whole) if whole > 1e-9 else None,
    }
