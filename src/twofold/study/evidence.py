"""What a report is made from: the files of one study as arrays of scores, read without its data or its models.

Shapes: S seeds, Q queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from twofold.errors import DataError
from twofold.study.file import CompareConfig, Study
from twofold.study.grid import Cell, cells
from twofold.study.statistics import Effect, Scores, effect
from twofold.study.store import is_pointer, load

DECIDING = ("dense", "rerank", "classify")
"""Rows that a rule may be about, in their order; the pipeline mixes two of them."""


@dataclass(frozen=True, order=True)
class Place:
    """Where arms are compared: what was trained on, the backbone, what is measured on, and which row."""

    data: str
    backbone: str
    test: str
    row: str

    def __str__(self) -> str:
        on = self.data if self.test == self.data else f"{self.data} → {self.test}"
        return f"{on}, {self.backbone}, {self.row}"


class Evidence:
    """A study's cells and runs of the sweep that are there. Raises DataError where two files claim to be the same cell."""

    def __init__(self, study: Study, folder: Path) -> None:
        self.study, self.folder = study, folder
        self.cells: dict[Cell, dict[str, Any]] = {}
        self.sweeps: dict[Cell, dict[str, Any]] = {}
        self.files: dict[Cell, Path] = {}
        self._effects: dict[tuple[Any, ...], Effect] = {}
        wanted = {(cell.data, cell.backbone, cell.arm, cell.seed) for cell in cells(study)}
        for path in sorted(folder.glob("*.json")):
            found = load(path)
            cell = Cell(**{**found["cell"], "lr": found["lr"] if found["cell"]["sweeping"] else None})
            if cell.sweeping or (cell.data, cell.backbone, cell.arm, cell.seed) in wanted:
                if cell in self.files:
                    raise DataError(f"{path} and {self.files[cell].name} are both {cell.label}: remove the one of older settings")
                (self.sweeps if cell.sweeping else self.cells)[cell] = found
                self.files[cell] = path

    @property
    def total(self) -> int:
        """How many cells the study has."""
        return sum(1 for _ in cells(self.study))

    @property
    def complete(self) -> bool:
        """Whether all are there."""
        return len(self.cells) == self.total

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Where anything was measured, in the order of the study's file."""
        order = {**{name: i for i, name in enumerate(self.study.data)}, **{name: i for i, name in enumerate(self.study.backbones)}}
        found = {
            Place(cell.data, cell.backbone, test, row)
            for cell, content in self.cells.items()
            for test, measured in content["tests"].items()
            for row in measured["per_query"]
        }
        rows = (*DECIDING, "pipeline")
        return tuple(sorted(found, key=lambda at: (order[at.data], order[at.backbone], at.test, rows.index(at.row))))

    def scores(self, place: Place, arm: str) -> Scores | None:
        """(S, Q) of an arm, seeds and query ids in their order; None where nothing was measured. Raises DataError for unlike queries."""
        found = [
            (cell, content["tests"][place.test]["per_query"][place.row])
            for cell, content in sorted(self.cells.items(), key=lambda item: item[0].seed)
            if (cell.data, cell.backbone, cell.arm) == (place.data, place.backbone, arm)
            and place.row in content["tests"].get(place.test, {}).get("per_query", {})
        ]
        if not found:
            return None
        if len({frozenset(values) for _, values in found}) > 1:
            raise DataError(f"{self.study.study.name}, {place}, {arm}: its seeds were not measured on the same queries")
        return np.array([[values[query] for query in sorted(values)] for _, values in found], dtype=np.float64)

    def queries(self, place: Place) -> set[str]:
        """The queries of a place. Raises DataError where arms were measured on different ones."""
        found = {
            frozenset(content["tests"][place.test]["per_query"][place.row])
            for cell, content in self.cells.items()
            if (cell.data, cell.backbone) == (place.data, place.backbone) and place.row in content["tests"][place.test]["per_query"]
        }
        if len(found) > 1:
            raise DataError(f"{self.study.study.name}, {place}: not all arms were measured on the same queries")
        return set(next(iter(found)))

    def effect(self, place: Place, a: str, b: str) -> Effect | None:
        """Arm A against arm B in one place; None where one of them is not there."""
        if (place, a, b) not in self._effects:
            a_SQ, b_SQ = self.scores(place, a), self.scores(place, b)
            if a_SQ is None or b_SQ is None:
                return None
            self.queries(place)
            self._effects[place, a, b] = effect(a_SQ, b_SQ)
        return self._effects[place, a, b]

    def compared(self, comparison: CompareConfig) -> dict[Place, Effect]:
        """Place → effect, wherever both sides of a comparison are there."""
        found = {}
        for place in self.places:
            a, b = comparison.arm("a", place.row), comparison.arm("b", place.row)
            wanted = place.row in comparison.rows and (comparison.tests is None or place.test in comparison.tests)
            if wanted and a and b and (gain := self.effect(place, a, b)) is not None:
                found[place] = gain
        return found

    def against(self) -> dict[Place, dict[str, Effect]]:
        """Place → rival → what the tested arm gains over it, for the rows that a rule may be about."""
        tested = self.study.study.tested
        if tested is None:
            return {}
        found = {}
        for place in (place for place in self.places if place.row in DECIDING):
            gains = {rival: self.effect(place, tested, rival) for rival in self.study.study.rivals}
            if here := {rival: gain for rival, gain in gains.items() if gain is not None}:
                found[place] = here
        return found

    def elsewhere(self) -> str | None:
        """The study whose cells these are, where all of them are another's; else None."""
        if not self.cells or not all(is_pointer(self.files[cell]) for cell in self.cells):
            return None
        studies = {content["study"] for content in self.cells.values()}
        return studies.pop() if len(studies) == 1 else None

    def arms(self) -> Iterator[str]:
        """The arms of which there is a cell, in the order of the file."""
        there = {cell.arm for cell in self.cells}
        return (arm for arm in self.study.arms if arm in there)

    def of(self, **where: str) -> Mapping[Cell, dict[str, Any]]:
        """The cells with these values of data, backbone, arm, seed."""
        return {cell: content for cell, content in self.cells.items() if all(getattr(cell, key) == value for key, value in where.items())}
