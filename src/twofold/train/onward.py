"""Settings of a trial that goes on from a trained model: `twofold train DATA --from MODEL [--add NAME]`.

NAME is a kind of task (`classify`, `answer`, or one of yours), perhaps with a variant (`classify:banking77`), or `domain:NAME`, which
stands for `retrieve:NAME` and `rerank:NAME`. Without an addition all that the model has goes on learning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twofold.data.labelled import LabelledDataset
from twofold.errors import ConfigError
from twofold.records import Labelled
from twofold.tasks import kind_of, reads

DOMAIN = "domain:"
EPOCHS, BATCH, LEAST_STEPS, MOST_STEPS = 6, 32, 60, 1500
READING = {"batch": 8, "negatives": 1}
"""What a task that answers learns from in a step."""


@dataclass(frozen=True)
class Onward:
    """The model that a trial starts from, and what it adds to it."""

    start: str
    add: tuple[str, ...] = ()

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that are added. Raises ConfigError for a domain without a name."""
        found: list[str] = []
        for name in self.add:
            if name.startswith(DOMAIN):
                if not (variant := name.removeprefix(DOMAIN)):
                    raise ConfigError("--add domain: needs a name, such as domain:legal")
                found += [f"retrieve:{variant}", f"rerank:{variant}"]
            else:
                found.append(name)
        return tuple(found)

    def learns_labels(self) -> bool:
        """Whether the added tasks learn from labelled texts. Raises ConfigError where only some of them do, and for an unknown task."""
        kinds = {reads(task) is Labelled for task in self.tasks}
        if len(kinds) > 1:
            raise ConfigError(f"--add {', '.join(self.add)}: some learn from labelled texts and some do not; add one, then the other")
        return kinds == {True}

    def of_ranking(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Settings made for queries and documents, for a trial that starts from the model: its lengths, not those of the data."""
        kept = {key: value for key, value in values.items() if key not in ("backbone", "method", "tasks")}
        tasks, lengths = values["tasks"], {"steps", "lr"}
        kept["optim"] = {key: value for key, value in values["optim"].items() if key in lengths}
        if not self.add:
            return {**kept, "start": self.start, "method": {"name": "continued"}, "tasks": tasks, "name": f"{values['name']}-continued"}
        own = {task: tasks.get(kind_of(task), READING) for task in self.tasks}
        added = {**kept, "start": self.start, "method": {"name": "add_expert"}, "tasks": own, "name": f"{values['name']}-added"}
        if any(kind_of(task) != "answer" for task in own):
            return added
        seen = values["optim"]["steps"] * tasks["retrieve"]["batch"]  # as many questions as retrieval would learn from
        steps = min(max(math.ceil(seen / READING["batch"]), LEAST_STEPS), MOST_STEPS)
        added["method"]["options"] = {"rank": 16}
        return {**added, "optim": {"steps": steps, "lr": 2e-3, "lr_heads": 5e-3, "token_budget": 4096}}

    def of_labels(self, name: str, source: str, dataset: LabelledDataset) -> dict[str, Any]:
        """Settings made for labelled texts."""
        size = len(dataset.split("train"))
        batch = min(BATCH, size)
        steps = min(max(math.ceil(EPOCHS * size / batch), LEAST_STEPS), MOST_STEPS)
        return {
            "name": f"{name}-added",
            "start": self.start,
            "method": {"name": "add_expert"},
            "data": {"train": [source]},
            "tasks": {task: {"batch": batch} for task in self.tasks},
            "optim": {"steps": steps, "lr": 1e-3, "lr_heads": 1e-2},
            "checkpoint": {"every": 100},
        }


def labels_in_short(dataset: LabelledDataset) -> list[str]:
    """What is said of labelled texts before a training: counts by split, and labels that are rare or only tested."""
    counts = ", ".join(f"{len(dataset.split(split)):,} {split}" for split in dataset.splits)
    lines = [f"{dataset.name}: {counts} texts, {len(dataset.labels)} labels"]
    lines += [f"{dataset.name}: skipped {count} × {kind}" for kind, count in dataset.skipped.items()]
    tested = {one.label for split in dataset.splits if split != "train" for one in dataset.split(split)}
    if unlearnt := sorted(tested - set(dataset.labels)):
        lines.append(f"{dataset.name}: warning: {_some(unlearnt)} in dev or test and never in train, so never guessed")
    sizes = dict.fromkeys(dataset.labels, 0)
    for one in dataset.split("train"):
        sizes[one.label] += 1
    if rare := [label for label, size in sizes.items() if size < 5]:
        lines.append(f"{dataset.name}: note: {_some(rare)} with fewer than five texts in train")
    return lines


def _some(labels: Sequence[str]) -> str:
    names = ", ".join(map(repr, labels[:3]))
    return f"label {names}" if len(labels) == 1 else f"{len(labels)} labels ({names}{', …' * (len(labels) > 3)})"
