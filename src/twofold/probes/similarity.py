"""How alike the experts' outputs are, to one another and to the base layer's: linear CKA, debiased; and what the experts change downstream.

For the outputs X and Y of two parts of a layer on the same n inputs (each the mean over the input's tokens), with K = X Xᵀ and L = Y Yᵀ,

    CKA = HSIC(K, L) / √(HSIC(K, K) · HSIC(L, L))      (Kornblith et al. 2019, arXiv 1905.00414)

with the unbiased HSIC of Song et al. 2012 (as Nguyen et al. 2021, arXiv 2010.15327, use it): the plain one tends to 1 where there are
fewer inputs than features, this one stays at 0 for what has nothing in common, and may fall a little below. 1 means the same up to
rotation and scale. An expert's output is s B A x, not weighed by the router: what it says, not how loud. `drift` compares what comes into
each layer in the task's passes with what comes in without experts: 1 where the experts of the layers before changed nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from twofold.core.layer import MixtureLinear
from twofold.core.routing import current
from twofold.data.sources import Dataset
from twofold.model.system import System
from twofold.model.unified import UnifiedModel
from twofold.probes import AnyDataset, Progress, Report, Row, Value, quiet
from twofold.probes._looking import Factors, Look, factors, layers_of, observe, one_mixture, pooled
from twofold.probes._material import LENGTH, all_passes
from twofold.probes._numbers import Floats, mean_of, rounded

BASE, INPUT = "base", "layer input"
FEWEST = 4
UNITS = {
    "cka": "debiased linear CKA, 1: the same up to rotation and scale, about 0: nothing in common",
    "drift": "debiased linear CKA of the layer's input with and without experts",
}


def run(
    system: System,
    dataset: Dataset,
    *,
    split: str = "test",
    queries: int = 100,
    beside: Sequence[AnyDataset] = (),
    progress: Progress = quiet,
    length: int = LENGTH,
) -> Report:
    """`length`: tokens of an input (0: the model's own)."""
    model, notes = one_mixture(system, "similarity"), list[str]()
    parts = {layer.layer: {name: factors(layer, name) for name in layer.roster.experts} for layer in layers_of(model)}
    rows: list[Row] = []
    drifts: list[Row] = []
    for one in all_passes(system, dataset, beside, split, queries, notes, length):
        if one.size < FEWEST:
            notes.append(f"{one.dataset} {one.task} {one.side}: {one.size} inputs; debiased CKA needs {FEWEST}")
            continue
        with_experts = observe(one, _outputs(parts), progress=progress)
        bare = observe(
            one, lambda _, x, __: {INPUT: pooled(x)}, names=(), progress=progress, what=f"{one.task} {one.side}, without experts"
        )
        where: Row = {"task": one.task, "side": one.side, "dataset": one.dataset}
        for layer, seen in with_experts.items():
            grams = {name: gram(x_SD) for name, x_SD in seen.items() if name != INPUT}
            rows += [{"layer": layer, **where, "a": a, "b": b, "cka": rounded(cka(grams[a], grams[b]))} for a, b in _pairs(grams)]
            drifts.append({"layer": layer, **where, "drift": rounded(cka(gram(seen[INPUT]), gram(bare[layer][INPUT])))})
    facts = _facts(rows, drifts, model)
    return {"facts": facts, "tables": {"means": _means(rows), "layers": rows, "drift": drifts}, "units": UNITS, "notes": notes}


def gram(x_SD: NDArray[np.float32]) -> Floats:
    """(S, S) inner products, of rows that are moved to mean 0, which the unbiased HSIC does not need and rounding does."""
    centred = x_SD.astype(np.float64) - x_SD.astype(np.float64).mean(0)
    found: Floats = centred @ centred.T
    return found


def cka(k_SS: Floats, l_SS: Floats) -> float | None:
    """Debiased CKA of two Gram matrices; None where one of the two does not vary over the inputs."""
    both, one, two = hsic(k_SS, l_SS), hsic(k_SS, k_SS), hsic(l_SS, l_SS)
    scale = max(float(np.square(k_SS).mean()), 1e-300), max(float(np.square(l_SS).mean()), 1e-300)
    return both / (one * two) ** 0.5 if one > 1e-12 * scale[0] and two > 1e-12 * scale[1] and min(scale) > 1e-280 else None


def hsic(k_SS: Floats, l_SS: Floats) -> float:
    """Unbiased estimate (Song et al. 2012, equation 5) from at least four inputs."""
    n = len(k_SS)
    k, m = k_SS - np.diag(np.diag(k_SS)), l_SS - np.diag(np.diag(l_SS))
    row_k, row_m = k.sum(0), m.sum(0)
    value = (k * m).sum() + row_k.sum() * row_m.sum() / ((n - 1) * (n - 2)) - 2 * (row_k @ row_m) / (n - 2)
    return float(value / (n * (n - 3)))


def _outputs(parts: Mapping[str, Mapping[str, Factors]]) -> Look:
    """What `observe` asks of a layer: its input, the base's output, and what every expert that the pass sees would add."""

    def look(layer: MixtureLinear, x: Tensor, _: Tensor) -> dict[str, Tensor]:
        mean_SD = pooled(x)  # all of these are linear, so the mean may come first
        own = parts[layer.layer]
        seen = layer.roster.visible(current().tasks)
        return {INPUT: mean_SD, BASE: layer.linear(mean_SD)} | {name: mean_SD @ own[name].a_RD.T @ own[name].b_DR.T for name in seen}

    return look


def _pairs(grams: Mapping[str, Floats]) -> list[tuple[str, str]]:
    """Every two experts, and every expert with the base."""
    experts = [name for name in grams if name != BASE]
    return [*itertools.combinations(experts, 2), *((name, BASE) for name in experts)]


def _means(rows: Sequence[Row]) -> list[Row]:
    """The mean over layers for each pair and kind of pass."""
    keys = ("task", "side", "dataset", "a", "b")
    groups: dict[tuple[Value, ...], list[Value]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row["cka"])
    return [{**dict(zip(keys, group, strict=True)), "cka": mean_of(values)} for group, values in groups.items()]


def _facts(rows: Sequence[Row], drifts: Sequence[Row], model: UnifiedModel) -> Row:
    tasks = dict.fromkeys(str(row["task"]) for row in drifts)
    last = list(dict.fromkeys(str(row["layer"]) for row in drifts))[-1:]
    return {
        "layers": len(layers_of(model)),
        "between_experts": mean_of([row["cka"] for row in rows if row["b"] != BASE]),
        "expert_and_base": mean_of([row["cka"] for row in rows if row["b"] == BASE]),
        **{f"drift_{task}": mean_of([row["drift"] for row in drifts if row["task"] == task and row["layer"] in last]) for task in tasks},
    }
