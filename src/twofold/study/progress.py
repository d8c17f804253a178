"""How far a study is, and how long the rest will take, by what the cells so far have taken."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from twofold.errors import ConfigError, DataError
from twofold.study.grid import Cell, cells, learns, sweep_of
from twofold.study.store import Store


@dataclass(frozen=True)
class Took:
    """The seconds of one finished job."""

    data: str
    sweeping: bool
    train: float
    """0 where the trained model was there already."""
    measure: float

    @property
    def all(self) -> float:
        """Both."""
        return self.train + self.measure


@dataclass(frozen=True)
class Progress:
    """Counts of jobs, and the seconds that the rest is expected to take in one process (`bounded`: at least)."""

    cells: int
    cells_done: int
    sweeps: int
    sweeps_done: int
    seconds: float | None
    """None where nothing is done yet to judge by."""
    bounded: bool
    took: tuple[Took, ...] = ()

    def longest(self, cell: Cell) -> float:
        """The longest that a job of this kind has taken so far; of any kind where there was none of it; 0 where there was none."""
        own = [took.all for took in self.took if took.sweeping == cell.sweeping and took.data == cell.data]
        return max(own or [took.all for took in self.took if took.sweeping == cell.sweeping] or [took.all for took in self.took] or [0.0])

    def __str__(self) -> str:
        sweep = f"{self.sweeps_done} of {self.sweeps} runs of the sweep, " if self.sweeps else ""
        done = f"{sweep}{self.cells_done} of {self.cells} cells done"
        if self.cells == self.cells_done:
            return done
        rest = "not known before the first" if self.seconds is None else f"{'at least ' * self.bounded}{self.seconds / 60:.0f} minutes"
        return f"{done}; the rest, in one process: {rest}"


def progress_of(store: Store, only: tuple[str, ...] = ()) -> Progress:
    """What is done of a study's cells, or of those that `only` names, and of the sweeps that they need."""
    wanted = list(cells(store.study, only))
    runs = list(dict.fromkeys(run for cell in wanted for run in sweep_of(store.study, cell)))
    took, left = [], []
    for job in [*runs, *wanted]:
        found = _found(store, job)
        if found is None:
            left.append(job)
        else:
            took.append(Took(job.data, job.sweeping, found["seconds"]["train"], found["seconds"]["measure"]))
    seconds = [_expected(store, job, took) for job in left]
    measured = any(not each.sweeping for each in took)
    return Progress(
        cells=len(wanted),
        cells_done=len(wanted) - sum(not job.sweeping for job in left),
        sweeps=len(runs),
        sweeps_done=len(runs) - sum(job.sweeping for job in left),
        seconds=sum(seconds) if took else None,
        bounded=not measured,
        took=tuple(took),
    )


def _found(store: Store, job: Cell) -> dict[str, Any] | None:
    try:
        ready = job if job.sweeping else store.resolved(job)
        return None if ready is None else store.get(ready)
    except (KeyError, ConfigError, DataError):  # it starts from an arm whose rate is not chosen yet, or its backbone or data are not here
        return None


def _expected(store: Store, job: Cell, took: list[Took]) -> float:
    """Seconds of a job that is not done: the mean of its kind with the same data, else of its kind, else of all."""

    def mean(what: str, *, trained: bool) -> float:
        some = [each for each in took if each.train > 0] if trained else [each for each in took if each.sweeping == job.sweeping]
        own = [each for each in some if each.data == job.data] or some or took
        return statistics.mean(getattr(each, what) for each in own) if own else 0.0

    again = not job.sweeping and job.seed == store.study.sweep.seed and bool(sweep_of(store.study, job))
    training = 0.0 if again or not learns(store.study, job) else mean("train", trained=True)
    return training + mean("measure", trained=False)
