"""Cells with planted scores: what a study would have written, had it found what we want it to find."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from twofold import provenance
from twofold.study.file import Study, make
from twofold.study.grid import Cell, cells, name_of
from twofold.study.store import FORMAT, KIND, dump

QUERIES = 400


def planted_study(arms: tuple[str, ...], /, **changes: Any) -> Study:
    """Arms on one made-up dataset, three seeds."""
    values: dict[str, Any] = {
        "study": {"name": "planted", "title": "What was planted?", "seeds": [0, 1, 2]},
        "backbones": {"b": {}},
        "data": {"d": {"train": ["d"]}},
        "arms": {arm: {"what": f"the arm {arm}", "method": {"name": "zero_shot"}} for arm in arms},
    }
    for key, value in changes.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, Mapping) else value
    return make(values)


def scores(gain: float, seed: int, spread: float = 0.02, queries: int = QUERIES) -> np.ndarray:
    """A base that all arms share, an arm's gain, and a little of its own for every query."""
    base = np.random.default_rng(7).uniform(0.3, 0.7, queries)
    return np.clip(base + gain + np.random.default_rng(1000 + seed).normal(0, spread, queries), 0, 1)


def plant(study: Study, folder: Path, gains: Mapping[str, Mapping[str, float]], leave_out: tuple[str, ...] = ()) -> Path:
    """Writes a cell for every place of the grid: arm → row → its gain over the base. `leave_out`: labels of cells that were not run."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, cell in enumerate(cells(study)):
        if cell.label in leave_out or cell.arm not in gains:
            continue
        rows = {row: scores(gain, 100 * number + len(row)) for row, gain in gains[cell.arm].items()}
        write_cell(study, folder, cell, rows, tests=study.data[cell.data].tests)
    return folder


def write_cell(study: Study, folder: Path, cell: Cell, rows: Mapping[str, np.ndarray], tests: list[str]) -> None:
    test = {
        "fingerprint": "f",
        "documents": 1000,
        "queries": QUERIES,
        "candidates": {"by": "bm25", "queries": QUERIES, "present": 0.9, "sha256": "s"},
        "rows": {row: {"nDCG@10": round(float(values.mean()), 6)} for row, values in rows.items()},
        "per_query": {row: {f"q{i:04d}": round(float(value), 6) for i, value in enumerate(values)} for row, values in rows.items()},
        "seconds": {},
    }
    about = {"data": cell.data, "backbone": cell.backbone, "arm": cell.arm, "seed": cell.seed, "sweeping": False}
    task = {"batch": 4, "negatives": 1}
    content = {
        "kind": KIND,
        "format": FORMAT,
        "study": study.study.name,
        "cell": about,
        "key": f"{cell.label}-key",
        "lr": 1e-3,
        "config": {"optim": {"steps": 5}, "backbone": {"max_length": 8, "pair_length": 16}, "tasks": {"retrieve": task, "rerank": task}},
        "train": {"tokens": 10, "parameters": {"total": 5, "trainable": 3, "active": {"retrieve": 2, "rerank": 2}}},
        "timing": {"seconds": 1.0, "tokens_per_second": 100.0},
        "gates": {"retrieve": {"layer.0": {"embedding": 2.0, "shared": 1.0}}},
        "dev": {"retrieve": 0.5},
        "criterion": 0.5,
        "tests": dict.fromkeys(tests, test),
        "seconds": {"train": 1.0, "measure": 2.0},
        "environment": provenance.environment(),
    }
    (folder / f"{name_of(study, cell)}.json").write_text(dump(content))
