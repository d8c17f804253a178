"""Do the tasks pull shared parameters in different directions? Cosines of their gradients, beside what one task reaches with itself.

g_i,m is the gradient of task i's loss on batch m, all batches of different queries. For a set of parameters,

    cosine  = mean over m, n of cos(g_i,m , g_j,n)             between two tasks
    within_i = mean over m ≠ n of cos(g_i,m , g_i,n)           a task with itself: two halves of its own data
    ceiling = √(within_i · within_j)                           what `cosine` would be if both tasks wanted the same
    corrected = cosine / ceiling                               as if batches were without noise (Spearman 1904, attenuation)

A cosine near 0 says nothing by itself: gradients of small batches are mostly noise, and two batches of one task are often nearly
orthogonal, too. Conflict is a cosine that is certainly below 0; interference without conflict, one certainly below its ceiling. (Gradient
conflict as of Yu et al. 2020, arXiv 2001.06782, with their magnitude similarity 2ab / (a² + b²).) Intervals are bootstraps over batches.

Parts are layer × slice (an expert, what a bank's experts share, the router) × matrix; of several parts together the gradients are put
side by side, not their cosines averaged. Only parameters count that both tasks use. A fresh LoRA has B = 0, hence no gradient in A.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from twofold.data.sources import Dataset
from twofold.model.system import System
from twofold.probes import AnyDataset, Progress, Report, Row, quiet
from twofold.probes._gradients import Gradients, Learners, Part, drawn, gradient, learners, learning, shared_parameters
from twofold.probes._looking import block_name, module_name
from twofold.probes._material import LENGTH
from twofold.probes._numbers import LEVEL, RESAMPLES, Floats, rounded

UNITS = {
    "cosine": "mean cosine of two batches' gradients, one of each task, −1 to 1; low, high: 95 % bootstrap interval over batches",
    "ceiling": "√(within_a · within_b), the mean cosine to be expected if both tasks wanted the same; None where a task is noise alone",
    "within_a": "mean cosine of two batches of the first task; within_b: of the second",
    "corrected": "cosine / ceiling: 1 the same direction, 0 unrelated, below 0 conflict; None where there is no ceiling",
    "gap": "ceiling − cosine; gap_low, gap_high: its interval",
    "negative": "share of the pairs of batches whose cosine is below 0",
    "magnitude": "2ab / (a² + b²) of the two tasks' gradient norms: 1 the same length",
    "level": "what is put together: all, slice, block, module, matrix",
}


class Cell(NamedTuple):
    """The batches' gradients of two tasks in some parameters. M batches of each task."""

    cross_MM: Floats
    a_MM: Floats
    b_MM: Floats
    """Inner products of batches: between the tasks, and within each."""


def run(
    system: System,
    dataset: Dataset,
    *,
    split: str = "train",
    queries: int = 128,
    beside: Sequence[AnyDataset] = (),
    seed: int = 0,
    progress: Progress = quiet,
    batch: int = 8,
    tasks: tuple[str, ...] = (),
    trains: tuple[str, ...] = (),
    length: int = LENGTH,
) -> Report:
    """`batch`: queries of one; `tasks`: all that have data, unless named; `trains`: parameter groups (expert:*, bank, router, backbone),
    by default the first three or, where there are none, the backbone; `length`: tokens of an input (0: the model's own)."""
    notes: list[str] = []
    one = learners(system, dataset, beside, split, queries, batch, tasks, length, seed, notes)
    grams = _grams(one, trains, seed, progress)
    rows: list[Row] = []
    groups: list[Row] = []
    facts: Row = {"batches": one.rounds, "batch": batch}
    for i, (a, b) in enumerate(itertools.combinations(one.tasks, 2)):
        cells = {part: _cell(gram, one, a, b) for part, gram in grams.items() if _used(gram, one, a) and _used(gram, one, b)}
        if not cells:
            notes.append(f"{a} and {b} share no parameter that has a gradient")
            continue
        pair: Row = {"a": a, "b": b}
        names, sums = zip(*_together(cells), strict=True)
        groups += [
            {**pair, "level": level, "part": name, **row} for (level, name), row in zip(names, _measured(sums, seed + i), strict=True)
        ]
        measured = _measured(list(cells.values()), seed + i)
        rows += [{**pair, **part._asdict(), **row} for part, row in zip(cells, measured, strict=True)]
        whole, prefix = next(row for row in groups if (row["a"], row["b"], row["level"]) == (a, b, "all")), f"{a}~{b}"
        facts |= {f"{prefix} {key}": whole[key] for key in ("cosine", "low", "high", "ceiling", "corrected", "gap_low", "gap_high")}
        facts |= {f"{prefix} parts": len(cells), f"{prefix} parts below 0": _count(measured, "high", 0.0)}
    return {"facts": facts, "tables": {"groups": groups, "parts": rows}, "units": UNITS, "notes": notes}


def _grams(one: Learners, trains: Sequence[str], seed: int, progress: Progress) -> dict[Part, Floats]:
    """Part → inner products (N, N) of the gradients of all batches, task after task."""
    chosen = shared_parameters(one.model, trains)
    parameters = {name: parameter for name, (_, parameter) in chosen.items()}
    kept: list[Gradients] = []
    with learning(one.model, list(parameters.values())):
        for task, number in itertools.product(one.tasks, range(one.rounds)):
            found = gradient(one, task, number, parameters)
            kept.append({name: drawn(name, flat, seed) for name, flat in found.items()})
            progress("gradients", len(kept), len(one.tasks) * one.rounds)
    grams: dict[Part, Floats] = {}
    for name, (part, _) in chosen.items():
        rows = [each.get(name) for each in kept]
        size = next((len(row) for row in rows if row is not None), 0)
        stacked_ND = np.stack([np.zeros(size) if row is None else row.double().numpy() for row in rows])
        grams[part] = grams.get(part, 0.0) + stacked_ND @ stacked_ND.T
    return grams


def _rows_of(one: Learners, task: str) -> slice:
    start = one.tasks.index(task) * one.rounds
    return slice(start, start + one.rounds)


def _used(gram_NN: Floats, one: Learners, task: str) -> bool:
    return bool(np.diag(gram_NN)[_rows_of(one, task)].min() > 0)


def _cell(gram_NN: Floats, one: Learners, a: str, b: str) -> Cell:
    of_a, of_b = _rows_of(one, a), _rows_of(one, b)
    return Cell(gram_NN[of_a, of_b], gram_NN[of_a, of_a], gram_NN[of_b, of_b])


def _together(cells: Mapping[Part, Cell]) -> Iterator[tuple[tuple[str, str], Cell]]:
    """(level, name) → the sum of the inner products of its parts, which are those of the gradients side by side."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for part, cell in cells.items():
        places = {
            "all": "all",
            "slice": part.slice,
            "block": block_name(part.layer),
            "module": module_name(part.layer),
            "matrix": part.matrix,
        }
        for place in places.items():
            groups.setdefault(place, []).append(cell)
    order = ("all", "slice", "block", "module", "matrix")
    for place in sorted(groups, key=lambda each: order.index(each[0])):
        yield place, Cell(*(np.sum(each, axis=0) for each in zip(*groups[place], strict=True)))


def _measured(cells: Sequence[Cell], seed: int) -> list[Row]:
    """The row of every cell, with intervals from the same resamples of the batches for all."""
    cross, a, b = (np.stack(each) for each in zip(*cells, strict=True))
    norm_a, norm_b = (np.sqrt(np.diagonal(each, axis1=1, axis2=2)) for each in (a, b))
    cos = cross / (norm_a[:, :, None] * norm_b[:, None, :])
    cos_a, cos_b = a / (norm_a[:, :, None] * norm_a[:, None, :]), b / (norm_b[:, :, None] * norm_b[:, None, :])
    m = cos.shape[1]
    draw = np.random.default_rng(seed)
    drawn_a, drawn_b = (draw.multinomial(m, np.full(m, 1 / m), size=RESAMPLES) / m for _ in range(2))
    point = _statistics(cos, cos_a, cos_b, np.full((1, m), 1 / m), np.full((1, m), 1 / m))
    samples = _statistics(cos, cos_a, cos_b, drawn_a, drawn_b)
    bounds = {key: np.nanpercentile(_nan_safe(value), [50 * (1 - LEVEL), 50 * (1 + LEVEL)], axis=0) for key, value in samples.items()}
    length_a, length_b = (np.sqrt(np.square(each).mean(1)) for each in (norm_a, norm_b))
    rows: list[Row] = []
    for u in range(len(cells)):
        row: Row = {key: rounded(value[0, u]) for key, value in point.items()}
        row |= {"low": rounded(bounds["cosine"][0, u]), "high": rounded(bounds["cosine"][1, u])}
        for key in ("corrected", "gap"):
            known = row[key] is not None
            row |= {f"{key}_{end}": rounded(bounds[key][i, u]) if known else None for i, end in enumerate(("low", "high"))}
        row["negative"] = rounded(float((cos[u] < 0).mean()))
        row["magnitude"] = rounded(2 * length_a[u] * length_b[u] / (length_a[u] ** 2 + length_b[u] ** 2))
        rows.append(row)
    return rows


def _statistics(cos: Floats, cos_a: Floats, cos_b: Floats, share_a: Floats, share_b: Floats) -> dict[str, Floats]:
    """(resamples, cells) of each statistic. `share` (resamples, M): how often each batch was drawn; it never meets itself."""
    cosine = np.einsum("rm,umn,rn->ru", share_a, cos, share_b, optimize=True)
    within = []
    for share, own in ((share_a, cos_a), (share_b, cos_b)):
        alone = np.square(share).sum(1)[:, None]
        total = np.einsum("rm,umn,rn->ru", share, own, share, optimize=True) - np.square(share) @ np.diagonal(own, axis1=1, axis2=2).T
        within.append(np.divide(total, 1 - alone, out=np.full_like(total, np.nan), where=np.broadcast_to(alone < 1, total.shape)))
    within_a, within_b = within
    known = (within_a > 0) & (within_b > 0)
    ceiling = np.sqrt(np.where(known, within_a * within_b, np.nan))
    return {
        "cosine": cosine,
        "within_a": within_a,
        "within_b": within_b,
        "ceiling": ceiling,
        "corrected": cosine / ceiling,
        "gap": ceiling - cosine,
    }


def _nan_safe(values: Floats) -> Floats:
    """Columns that are never known as zeros, so that percentiles do not warn; their rows say None by themselves."""
    lost = ~np.isfinite(values).any(0)
    return np.where(lost, 0.0, values)


def _count(rows: Sequence[Row], column: str, below: float) -> int:
    return sum(isinstance(row[column], float) and float(str(row[column])) < below for row in rows)
