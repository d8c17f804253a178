"""What a study has found so far: one JSON file per cell and per run of the sweep, by a key of everything that decides its numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from twofold import provenance
from twofold.backbone.load import weights_sha256
from twofold.cache import write_text
from twofold.config import TrialConfig
from twofold.errors import ConfigError, DataError
from twofold.study.file import Study
from twofold.study.grid import Cell, name_of, settings, sources, sweep_of
from twofold.study.sample import Samples

KIND, POINTER, FORMAT = "study cell", "study cell elsewhere", 1
"""FORMAT is part of every key: a change of the code that changes numbers raises it."""
LENGTH = 16
FREE = {"name", "threads", "device", "checkpoint", "start"}
"""Settings of a trial that do not change what it is: its name, where it runs, and what it can be resumed from. Those that are at their
defaults are left out, too: a new setting leaves older cells what they are, and a changed default is what FORMAT is for."""


def digest(parts: Any) -> str:
    """A short sha256 of JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:LENGTH]


@lru_cache(maxsize=16)
def _backbone_sha256(name: str) -> str | None:
    return weights_sha256(name)


@dataclass
class Store:
    """The results of one study in `folder` (results/studies/NAME), and beside it those of others, whose equal cells count too."""

    study: Study
    folder: Path
    samples: Samples

    def __post_init__(self) -> None:
        self._keys: dict[tuple[str, Cell], str] = {}
        self._read: dict[Path, dict[str, Any]] = {}

    def config(self, cell: Cell, start: str | None = None) -> TrialConfig:
        """The settings of the cell's trial; where the arm starts from another's model, `start` is its folder."""
        needs = self.study.arms[cell.arm].start is not None
        return settings(self.study, cell, (start or "another arm's model") if needs else None)

    def trial_key(self, cell: Cell) -> str:
        """Of what decides a trained model: settings, data, backbone, the model it starts from, and the version of Twofold."""
        if ("trial", cell) not in self._keys:
            config, spec = self.config(cell), self.study.data[cell.data]
            names = sources(config)
            source = self.start_of(cell)
            self._keys["trial", cell] = digest(
                {
                    "format": FORMAT,
                    "twofold": provenance.versions().get("twofold"),
                    "settings": config.model_dump(mode="json", exclude=FREE, exclude_defaults=True),
                    "data": {name: self.samples.open(name, spec).fingerprint for name in names},
                    "backbone": _backbone_sha256(config.backbone.name),
                    "start": None if source is None else self.trial_key(source),
                }
            )
        return self._keys["trial", cell]

    def key(self, cell: Cell) -> str:
        """Of what decides a cell's numbers: its trial, and what it is measured on."""
        kind = "sweep" if cell.sweeping else "cell"
        if (kind, cell) not in self._keys:
            measure, spec = self.study.measure, self.study.data[cell.data]
            dev = measure.model_dump(include={"dev_queries", "dev_depth", "depth"}, exclude_defaults=True)
            parts: dict[str, Any] = {"kind": kind, "trial": self.trial_key(cell), "measure": dev}
            if not cell.sweeping:
                parts |= {
                    "measure": measure.model_dump(exclude_defaults=True),
                    "tests": {n: self.samples.open(n, spec).fingerprint for n in spec.tests},
                }
            self._keys[kind, cell] = digest(parts)
        return self._keys[kind, cell]

    def start_of(self, cell: Cell) -> Cell | None:
        """The cell whose model this one starts from, at the rate that was chosen for it. Raises KeyError where that is not known yet."""
        source = self.study.arms[cell.arm].start
        if source is None:
            return None
        found = self.resolved(replace(cell, arm=source, lr=None, sweeping=False))
        if found is None:
            raise KeyError(source)
        return found

    def path(self, cell: Cell) -> Path:
        """Where a cell's file goes."""
        kind = "sweep-" if cell.sweeping else ""
        return self.folder / f"{kind}{name_of(self.study, cell).removeprefix(self.study.study.name + '-')}-{self.key(cell)}.json"

    def get(self, cell: Cell) -> dict[str, Any] | None:
        """A cell's result, from this study or another beside it; None where there is none."""
        path = self.path(cell)
        if not path.is_file():
            others = [each for each in sorted(self.folder.parent.glob(f"*/*-{self.key(cell)}.json")) if not is_pointer(each)]
            if not others:
                return None
            path = others[0]
        if path not in self._read:
            self._read[path] = load(path)
        return self._read[path]

    def adopt(self, cell: Cell) -> None:
        """Where another study has done the cell, notes in this one's folder where it lies, so that a report finds it without the data."""
        path, found = self.path(cell), self.get(cell)
        if found is not None and not path.is_file():
            other = next(each for each, content in self._read.items() if content is found)
            about = {"data": cell.data, "backbone": cell.backbone, "arm": cell.arm, "seed": cell.seed, "sweeping": cell.sweeping}
            write_text(path, json.dumps({"kind": POINTER, "cell": about, "at": f"../{other.parent.name}/{other.name}"}) + "\n")

    def put(self, cell: Cell, content: Mapping[str, Any]) -> Path:
        """Writes a cell's result, all of it or nothing."""
        path = self.path(cell)
        write_text(path, dump({"kind": KIND, "format": FORMAT, **content}))
        return path

    def chosen(self, cell: Cell) -> float | None:
        """The learning rate that the sweep found best on dev for the cell's arm, the smallest of equals; None while it is not done, or
        where dev says nothing of a run."""
        runs = [(self.get(run), run.lr) for run in sweep_of(self.study, cell)]
        scores = {lr: found["criterion"] for found, lr in runs if found is not None and lr is not None}
        if len(scores) < len(runs) or (len(scores) > 1 and None in scores.values()):
            return None
        return max(sorted(scores), key=lambda lr: scores[lr])

    def check_sweep(self, cell: Cell) -> None:
        """Raises ConfigError where rates are to be tried for the cell's arm and nothing on dev could tell which is the best."""
        config, spec = self.config(cell), self.study.data[cell.data]
        names = sources(config)
        if len(sweep_of(self.study, cell)) > 1 and not self.samples.judges(names, spec, list(config.tasks)):
            raise ConfigError(
                f"data {cell.data!r}: {', '.join(names)} has no dev split that measures {', '.join(config.tasks)}, by which the sweep would"
                f" choose the learning rate of arm {cell.arm!r}: add one, or say sweep = false in [arms.{cell.arm}]"
            )

    def resolved(self, cell: Cell) -> Cell | None:
        """The cell with its learning rate; None while its sweep is not done."""
        if not sweep_of(self.study, cell):
            return cell
        lr = self.chosen(cell)
        return None if lr is None else replace(cell, lr=lr)


def is_pointer(path: Path) -> bool:
    """Whether a file only says where another study's cell lies."""
    return path.stat().st_size < 1000 and json.loads(path.read_text(encoding="utf-8")).get("kind") == POINTER


def load(path: Path) -> dict[str, Any]:
    """A cell's file, or the one that it points to. Raises DataError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if isinstance(content, dict) and content.get("kind") == POINTER:
        return {**load(path.parent / content["at"]), "cell": content["cell"]}
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise DataError(f"{path}: no result of a study; it should be an object with kind = {KIND!r}")
    return content


def dump(value: Any, indent: str = "") -> str:
    """JSON with one line for each innermost group, so that a cell of a thousand queries stays readable in a diff."""
    if not isinstance(value, Mapping) or (indent and not any(isinstance(each, Mapping) for each in value.values())):
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    inner = indent + " "
    lines = (f"{inner}{json.dumps(key, ensure_ascii=False)}: {dump(each, inner)}" for key, each in value.items())
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}" + ("" if indent else "\n")
