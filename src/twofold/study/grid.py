"""The cells of a study's grid, and the settings of each one's trial."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import Any

from twofold import config as configs
from twofold.config import TrialConfig
from twofold.study.file import Study
from twofold.tasks import kind_of
from twofold.train.trial import method_of


@dataclass(frozen=True)
class Cell:
    """One place of the grid. With `lr`, one run of the sweep or a cell whose rate was chosen; without, the base's own rate."""

    data: str
    backbone: str
    arm: str
    seed: int
    lr: float | None = None
    sweeping: bool = False

    @property
    def label(self) -> str:
        """What `--only` matches: `squad/minilm-l3/moe_lora/seed0`."""
        return f"{self.data}/{self.backbone}/{self.arm}/{f'lr{self.lr:g}' if self.sweeping else f'seed{self.seed}'}"


def cells(study: Study, only: tuple[str, ...] = ()) -> Iterator[Cell]:
    """The grid without its sweep: for every data and backbone all arms of the first seed, then of the next.

    `only` are patterns (`*/moe_lora/*`) or parts (`seed0`) of labels, of which one must match.
    """
    for data, spec in study.data.items():
        arms = [name for name, arm in study.arms.items() if name in (spec.arms or study.arms) and data in (arm.data or study.data)]
        for backbone in study.backbones:
            for seed in study.study.seeds:
                found = (Cell(data, backbone, arm, seed) for arm in arms if seed in (study.arms[arm].seeds or study.study.seeds))
                yield from (cell for cell in found if not only or any(matches(cell.label, each) for each in only))


def matches(label: str, pattern: str) -> bool:
    """Whether a label fits a pattern with `*`, or holds it as whole parts between slashes."""
    return fnmatch(label, pattern) or f"/{pattern.strip('/')}/" in f"/{label}/"


def learns(study: Study, cell: Cell) -> bool:
    """Whether the cell's arm trains anything."""
    key = cell.data, cell.arm
    if key not in study._learning:
        start = "another arm's model" if study.arms[cell.arm].start else None
        method = method_of(settings(study, replace(cell, lr=None), start))
        study._learning[key] = any(member.stages for member in method.members)
    return study._learning[key]


def sweep_of(study: Study, cell: Cell) -> list[Cell]:
    """The runs that choose the learning rate of a cell's arm; none where nothing is to be chosen."""
    if not study.arms[cell.arm].sweep or not learns(study, cell):
        return []
    return [replace(cell, seed=study.sweep.seed, lr=lr, sweeping=True) for lr in study.sweep.lr]


def settings(study: Study, cell: Cell, start: str | None = None) -> TrialConfig:
    """The settings of a cell's trial: [base], then what backbone, data and arm change, then seed and learning rate.

    `start` is the folder of the model that the arm begins from. Raises ConfigError naming the key that does not fit.
    """
    spec, arm = study.data[cell.data], study.arms[cell.arm]
    values: dict[str, Any] = {}
    for layer in (study.base, study.backbones[cell.backbone], spec.settings, arm.settings):
        merge(values, copy.deepcopy(layer))
    values |= {"name": name_of(study, cell), "seed": cell.seed, "method": arm.method.model_dump()}
    values.setdefault("data", {}).setdefault("train", list(spec.train))
    if arm.tasks is not None:
        given = values.get("tasks", {})
        values["tasks"] = {task: given.get(task, given.get(kind_of(task), {})) for task in arm.tasks}
    if start is not None:
        values["start"] = start
    if cell.lr is not None:
        for key in study.sweep.keys:
            merge(values, nested(key, cell.lr))
    return configs.make(values, where=f"study {study.study.name}, {cell.label}")


def name_of(study: Study, cell: Cell) -> str:
    """The cell's name in file names."""
    return f"{study.study.name}-{cell.label.replace('/', '-')}"


def merge(table: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Writes `other` over `table`, table by table."""
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(table.get(key), dict):
            merge(table[key], value)
        else:
            table[key] = value


def nested(key: str, value: Any) -> dict[str, Any]:
    """`a.b` and a value as tables."""
    for part in reversed(key.split(".")):
        value = {part: value}
    found: dict[str, Any] = value
    return found


def measured(config: TrialConfig) -> tuple[str, ...]:
    """The kinds of task that a trial's cell is measured in, of retrieve, rerank and classify."""
    return tuple(dict.fromkeys(kind_of(task) for task in config.tasks if kind_of(task) in ("retrieve", "rerank", "classify")))


def sources(config: TrialConfig) -> list[str]:
    """The names of all datasets that a trial learns from."""
    return list(dict.fromkeys([*config.data.train, *(name for task in config.tasks.values() for name in task.data or [])]))
