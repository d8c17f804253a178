"""Probes of a study's trained models: which are wanted, where their reports lie, and what they say over the seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twofold import provenance
from twofold.data.sources import Dataset
from twofold.errors import ConfigError, DataError
from twofold.methods import expert_of
from twofold.model.system import System
from twofold.probes import probe
from twofold.study.file import ProbeConfig, Study
from twofold.study.grid import Cell, cells, name_of
from twofold.study.store import Store, digest, dump
from twofold.study.verdict import NO, OPEN, YES

KIND = "study probe"


@dataclass(frozen=True)
class Wanted:
    """One probe of one cell's model, with the file that its report goes to."""

    cell: Cell
    probe: ProbeConfig
    path: Path


def wanted(store: Store, only: tuple[str, ...] = ()) -> Iterator[Wanted]:
    """The probes of the cells that are done."""
    for cell in cells(store.study, only):
        for each in store.study.probes:
            if each.arms is not None and cell.arm not in each.arms:
                continue
            ready = done(store, cell)
            if ready is not None:
                label = name_of(store.study, ready).removeprefix(f"{store.study.study.name}-")
                key = digest([store.key(ready), each.name, each.options])
                yield Wanted(ready, each, store.folder / "probes" / f"{each.name}-{label}-{key}.json")


def done(store: Store, cell: Cell) -> Cell | None:
    """The cell with its learning rate, if it is there."""
    try:
        ready = store.resolved(cell)
        return ready if ready is not None and store.get(ready) is not None else None
    except (KeyError, ConfigError, DataError):  # it waits for another arm, or its backbone or data are not here
        return None


def look(store: Store, one: Wanted, system: System, trial: Path) -> str:
    """Runs a probe on the test split of the cell's first test set; returns its report's file."""
    spec = store.study.data[one.cell.data]
    first, *others = (store.samples.open(name, spec) for name in spec.tests)
    assert isinstance(first, Dataset)
    options = dict(one.probe.options)
    given: dict[str, Any] = {key: options.pop(key) for key in ("split", "queries") if key in options}
    report = probe(one.probe.name, system, first, options, beside=others, trial=str(trial), seed=one.cell.seed, **given)
    cell = {"data": one.cell.data, "backbone": one.cell.backbone, "arm": one.cell.arm, "seed": one.cell.seed}
    about = {"kind": KIND, "probe": one.probe.name, "cell": cell, "of": store.key(one.cell), "options": one.probe.options}
    return dump({**about, "report": report, "environment": provenance.environment()})


def reports(folder: Path, study: Study) -> dict[str, list[dict[str, Any]]]:
    """Probe → the reports in a study's folder, of the cells that it has."""
    there = {(cell.data, cell.backbone, cell.arm, cell.seed) for cell in cells(study)}
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((folder / "probes").glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        cell = content["cell"]
        if content.get("kind") == KIND and (cell["data"], cell["backbone"], cell["arm"], cell["seed"]) in there:
            found.setdefault(content["probe"], []).append(content)
    return found


def facts(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each data × backbone × arm: the mean over seeds of every fact that is a number, and how many seeds."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for each in found:
        cell = each["cell"]
        groups.setdefault((cell["data"], cell["backbone"], cell["arm"]), []).append(each["report"]["facts"])
    rows = []
    for (data, backbone, arm), group in groups.items():
        row: dict[str, Any] = {"data": data, "backbone": backbone, "arm": arm, "seeds": len(group)}
        for key in group[0]:
            values = [one[key] for one in group if isinstance(one.get(key), (int, float)) and not isinstance(one.get(key), bool)]
            row[key] = statistics.mean(values) if values else group[0][key] if isinstance(group[0][key], (str, bool)) else None
        rows.append(row)
    return rows


def specialised(found: Sequence[Mapping[str, Any]]) -> tuple[str, list[str]]:
    """The rule of question 4, from the reports of the probe `knockout`: with every seed, does taking out a task's own expert cost that
    task more than taking out the other task's?"""
    why, holds, even, queries = [], list[bool](), 0, set[int]()
    for each in found:
        cell, rows = each["cell"], each["report"]["tables"]["knockouts"]
        for task, other in (("retrieve", "rerank"), ("rerank", "retrieve")):
            scores = {row["expert"]: row["score"] for row in rows if row["task"] == task and row["layers"] == "all"}
            own, others = scores.get(expert_of(task)), scores.get(expert_of(other))
            if own is None or others is None:
                continue
            known = each["report"]["facts"]
            whole, base = known[f"{task}_whole"], known[f"{task}_base"]
            holds.append(own < others)
            even += own == others
            queries.add(known["queries"])
            cost = f"without its own expert {own - whole:+.3f}, without the other's {others - whole:+.3f}".replace("-", "−")
            none = "; the experts gain nothing over the backbone here" if whole <= base else ""
            why.append(f"{cell['data']}, {cell['backbone']}, {cell['arm']}, seed {cell['seed']}, {task}: {cost}{none}")
    if not holds:
        return OPEN, ["no knock-out was run"]
    of = f"{' or '.join(str(each) for each in sorted(queries))} queries, no test: differences of single queries count"
    counted = f"its own expert costs a task more in {sum(holds)} of {len(holds)} places, exactly as much in {even}; {of}"
    return (YES if all(holds) else NO if not any(holds) else OPEN), [counted, *why]
