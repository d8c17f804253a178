"""Two results side by side: paired tests for every row, or a refusal that names everything that makes them incomparable."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twofold.errors import NotComparable
from twofold.evaluate.evaluation import PRIMARY, Evaluation
from twofold.evaluate.measures import mean
from twofold.evaluate.significance import Delta, paired_delta

SAME = (
    "data.fingerprint",
    "data.split",
    "settings.depth",
    "settings.bm25_rerank_depth",
    "settings.retrieval_depth",
    "settings.bm25_sha256",
)
"""What must agree between any two results."""
SAME_TRAINING = ("train.steps", "train.batch", "train.data")
"""What must agree besides, between two trained systems."""
TOLD = ("name", "method", "train.lr", "train.seed", "train.tokens", "train.parameters", "settings.rerank_weight", "environment.cpu",
        "environment.accelerators", "environment.commit")  # fmt: skip
"""What may differ, and is told."""


@dataclass(frozen=True)
class RowComparison:
    """One row: nDCG@10 of both systems, and what B gains over A."""

    row: str
    a: float
    b: float
    gain: Delta


@dataclass(frozen=True)
class Comparison:
    """B against A on the same queries; `differences` are (field, A's value, B's value), `notes` are sentences."""

    a: str
    b: str
    rows: tuple[RowComparison, ...]
    differences: tuple[tuple[str, Any, Any], ...]
    notes: tuple[str, ...]
    measure: str = PRIMARY

    def to_json(self) -> str:
        """The comparison as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)


def read(path: Path) -> Evaluation:
    """Read a result file. Raises DataError naming the file where it is not an evaluation."""
    return Evaluation.from_json(path.read_text(encoding="utf-8"), where=str(path))


def compare(a: Path, b: Path) -> Comparison:
    """Compare two result files, row by row, with a paired randomisation test and a bootstrap interval.

    Raises NotComparable, naming every field that differs among data, split, depths, BM25's candidates and, between two trained
    systems, steps per task, batch sizes and training data. A system of zero steps may stand beside a trained one, with a note.
    """
    first, second = read(a), read(b)
    trained = [name for name, result in zip((str(a), str(b)), (first, second), strict=True) if steps(result)]
    must = SAME + SAME_TRAINING if len(trained) == 2 else SAME
    differing = [(field, *values) for field in must if (values := _values(field, first, second)) is not None]
    if first.per_query["dense"].keys() != second.per_query["dense"].keys():
        differing.append(("queries", len(first.per_query["dense"]), len(second.per_query["dense"])))
    if differing:
        told = "; ".join(f"{field}: {_short(left)} against {_short(right)}" for field, left, right in differing)
        raise NotComparable(f"{a} and {b} cannot be compared, these should be equal: {told}")
    notes = [f"only {trained[0]} was trained: the gain contains everything that training gave"] if len(trained) == 1 else []
    notes += [f"{label} reranks with weight 0: its pipeline is its dense retrieval" for label, result in ((a, first), (b, second))
              if result.settings["rerank_weight"] == 0]  # fmt: skip
    return Comparison(
        a=str(a),
        b=str(b),
        rows=tuple(_row(row, first, second) for row in first.rows if row in second.rows),
        differences=tuple((field, *values) for field in TOLD if (values := _values(field, first, second)) is not None),
        notes=tuple(notes),
    )


def steps(result: Evaluation) -> int:
    """Optimiser steps over all tasks; 0 for a system as it came."""
    taken = (result.train or {}).get("steps") or {}
    return sum(taken.values()) if isinstance(taken, Mapping) else int(taken)


def _row(row: str, first: Evaluation, second: Evaluation) -> RowComparison:
    a, b = first.per_query[row], second.per_query[row]
    return RowComparison(row, mean(a), mean(b), paired_delta(b, a, first.settings["resamples"], first.settings["seed"]))


def _values(field: str, first: Evaluation, second: Evaluation) -> tuple[Any, Any] | None:
    """Both values of a dotted field where they differ, else None."""
    a, b = _get(first, field), _get(second, field)
    return None if a == b else (a, b)


def _get(result: Evaluation, field: str) -> Any:
    value: Any = vars(result)
    for key in field.split("."):
        value = (value or {}).get(key)
    return value


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
