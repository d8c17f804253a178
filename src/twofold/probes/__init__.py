"""Probes: analyses of a trained model. One file each; the file's name is the probe's name.

A file offers `run(system, dataset, *, split, queries, …)`, with a default for all but the first two, and gives a `Report`: plain
values that go into a JSON file as they are. The program gives the arguments of `probe` below, of which a probe takes those
that it names; whatever else it takes are options of its own. Probes look, and leave the system as it was, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypedDict

from twofold import plugins
from twofold.data.labelled import LabelledDataset
from twofold.data.sources import Dataset
from twofold.model.system import System

Value: TypeAlias = str | int | float | bool | None
Row: TypeAlias = dict[str, Value]
AnyDataset: TypeAlias = Dataset | LabelledDataset
Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how many of it are done, and how many there are."""


class Report(TypedDict):
    """What a probe found. A value that could not be had is None, and a note says why."""

    facts: Row
    """The answer in a few values, and the sizes that it rests on."""
    tables: dict[str, list[Row]]
    """Name → rows of the same keys: by layer, expert, task, …"""
    units: dict[str, str]
    """Fact or column → what it is, in what unit."""
    notes: list[str]
    """What was left out or cannot be concluded, and why, in sentences."""


def quiet(what: str, done: int, total: int) -> None:
    """Says nothing."""


def probe(
    name: str,
    system: System,
    dataset: Dataset,
    chosen: Mapping[str, Any] = {},
    /,
    *,
    split: str | None = None,
    queries: int | None = None,
    beside: Sequence[AnyDataset] = (),
    trial: str = "",
    seed: int = 0,
    progress: Progress = quiet,
) -> Report:
    """Runs a probe. `chosen` are its own options; `split` and `queries` (how many, by the hash of their ids) are its own where None.

    `beside`: further datasets, also of labelled texts, for probes that compare datasets or look at other tasks. `trial`: the folder
    of the training, for probes that look at its checkpoints. Raises ConfigError for a probe or an option that does not exist,
    DataError for a split that the dataset lacks.
    """
    given: dict[str, Any] = {
        "system": system,
        "dataset": dataset,
        "beside": tuple(beside),
        "trial": trial,
        "seed": seed,
        "progress": progress,
    }
    given |= {key: value for key, value in (("split", split), ("queries", queries)) if value is not None}
    report: Report = plugins.call_plugin("probes", name, "run", chosen, **given)
    return report
