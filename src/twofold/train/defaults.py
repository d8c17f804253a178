"""Settings made for a dataset: what `twofold train DATA` trains with, sized to the data and to the machine.

They are a start and no more: they are printed, and written as a whole to the trial's config.toml, to be changed and run again.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from twofold import config as configs
from twofold import provenance, toml
from twofold.config import TrialConfig
from twofold.data.check import Facts, Progress, examine
from twofold.data.findings import Limits, lengths, step_up
from twofold.data.labelled import LabelledDataset, open_labelled
from twofold.data.sources import Dataset, open_dataset
from twofold.errors import ConfigError
from twofold.records import Labelled
from twofold.tasks import reads
from twofold.train.check import SCAN, Check, Ruler, check_before, judged
from twofold.train.material import Say
from twofold.train.onward import Onward, labels_in_short
from twofold.train.start import with_start

EPOCHS, LEAST_STEPS = 3, 20
RANK, DEPTH, NEGATIVES = 8, 30, 3


@dataclass(frozen=True)
class Machine:
    """What the sizes depend on besides the data."""

    gpu: bool = False
    bf16: bool = False

    @classmethod
    def here(cls, device: str = "auto") -> Machine:
        """This one, for a `device` as a config names it."""
        gpu = device != "cpu" and torch.cuda.is_available()
        return cls(gpu, gpu or bool({"avx512_bf16", "amx_bf16"} & set(provenance.cpu()["flags"])))

    @property
    def longest(self) -> int:
        """Tokens of a text, at most."""
        return 512 if self.gpu else 256

    @property
    def most_steps(self) -> int:
        """Optimiser steps, at most."""
        return 1000 if self.gpu else 200

    @property
    def most_documents(self) -> int:
        """A collection of more is not encoded to mine negatives."""
        return 500_000 if self.gpu else 20_000


def default_values(name: str, source: str, facts: Facts, ruler: Ruler, machine: Machine) -> dict[str, Any]:
    """A trial's settings as a table, only what is decided here: our method, lengths that hold 95 of 100 texts, `EPOCHS` epochs."""
    train = facts.splits.get("train")
    queries = 0 if train is None else train.queries - train.without_positive
    room = facts.documents - (0 if train is None else train.most_positives)
    batch = _power_of_two(min(64 if machine.gpu else 32, queries // 4))
    steps = min(max(math.ceil(EPOCHS * queries / batch), LEAST_STEPS), machine.most_steps)
    given = train is not None and train.queries_with_zeros == train.queries and train.zeros >= NEGATIVES * train.queries
    dense = 0 if given or facts.documents > machine.most_documents else DEPTH
    sizes = _lengths(facts, ruler, machine)
    return {
        "name": name,
        "backbone": {**sizes, "precision": "bf16" if machine.bf16 else "fp32"},
        "method": {"name": "moe_lora", "options": {"rank": RANK}},
        "data": {"train": [source], "negatives": {"bm25_depth": 0 if given else DEPTH, "model_depth": dense}},
        "tasks": {
            "retrieve": {"batch": batch, "negatives": max(0, min(1, room))},
            "rerank": {"batch": max(1, batch // 2), "negatives": max(0, min(NEGATIVES, room))},
        },
        "optim": {"steps": steps, "lr": 1e-3 if steps <= 100 else 5e-4, **_training_lengths(sizes, ruler, machine)},
        "dev": {"queries": 100, "depth": 20},
    }


def _power_of_two(most: int) -> int:
    """The largest power of two up to `most`, at least 1."""
    return 1 << max(0, most.bit_length() - 1) if most > 0 else 1


def _lengths(facts: Facts, ruler: Ruler, machine: Machine) -> dict[str, int]:
    """Lengths that hold 95 of 100 texts, within what the machine and the model allow."""
    longest = min(machine.longest, ruler.reach)
    most = min(128, max(16, longest // 4))
    rows = lengths(facts, Limits(most, longest, longest, ruler.around_document, ruler.around_pair))
    query = step_up(rows["queries"].p95, most)
    document = step_up(rows["documents"].p95, longest)
    pair = step_up(rows["pairs"].p95 if "pairs" in rows else longest, min(longest + longest // 2, ruler.reach))
    least = step_up(2 * query + ruler.around_pair, ruler.reach)
    return {"max_length": document, "pair_length": max(pair, least), "query_length": query}


def _training_lengths(sizes: dict[str, int], ruler: Ruler, machine: Machine) -> dict[str, int]:
    """On a CPU long texts are learnt from by their beginnings."""
    around = max(ruler.around_document, ruler.around_pair)
    shorter = {"max_length": 128 + around, "pair_length": 160 + around} if around > 16 else {"max_length": 128, "pair_length": 160}
    return {} if machine.gpu else {key: most for key, most in shorter.items() if sizes[key] > most}


def trial_name(source: str) -> str:
    """A trial's name from a dataset's: its last part, with what a name may not hold replaced."""
    last = Path(source.rstrip("/").rpartition(":")[2]).resolve().name.removesuffix(".jsonl")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("._-") or "trial"


@dataclass(frozen=True)
class Made:
    """Settings made for a dataset, and what they were made from."""

    config: TrialConfig
    text: str
    """What was decided, as TOML, before overrides."""
    datasets: Mapping[str, Dataset | LabelledDataset]
    """By the name that was given."""
    check: Check | None
    """Of queries and documents."""


def config_for(
    source: str,
    overrides: Sequence[str] = (),
    scan: int | None = SCAN,
    progress: Progress = lambda *_: None,
    onward: Onward | None = None,
) -> Made:
    """Opens a dataset, counts it and makes the settings of a trial on it; overrides win. Raises DataError and ConfigError.

    With `onward`, the trial goes on from a trained model.
    """
    asked = preliminary(source, overrides, onward)
    dataset = open_dataset(source, asked.data.on_error, asked.data.graded)
    ruler = Ruler.of(asked.backbone)
    facts = examine(dataset, ruler.count, scan, progress)
    values = default_values(trial_name(source), source, facts, ruler, Machine.here(asked.device))
    values = values if onward is None else onward.of_ranking(values)
    text = toml.dump(values)
    config = with_start(configs.make(values, overrides, source))
    return Made(config, text, {source: dataset}, judged(config, facts, ruler))


def labels_for(source: str, overrides: Sequence[str], onward: Onward) -> Made:
    """The same for labelled texts, of which a further task learns."""
    asked = preliminary(source, overrides, onward)
    dataset = open_labelled(source, asked.data.on_error)
    values = onward.of_labels(trial_name(source), source, dataset)
    text = toml.dump(values)
    return Made(with_start(configs.make(values, overrides, source)), text, {source: dataset}, None)


def preliminary(source: str, overrides: Sequence[str], onward: Onward | None = None) -> TrialConfig:
    """What is known of the settings before the data is opened: name, backbone, how it is read."""
    ending = "" if onward is None else "-added" if onward.add else "-continued"
    values = {"name": trial_name(source) + ending, "data": {"train": [source]}, **({"start": onward.start} if onward else {})}
    return with_start(configs.make(values, overrides, source))


def check_of(source: str, config: Path | None, overrides: Sequence[str], progress: Progress = lambda *_: None) -> Check:
    """The whole check of a dataset, every document read: against the settings of a file, or those that would be made for it."""
    if config is None:
        made = config_for(source, overrides, None, progress)
        assert made.check is not None
        return made.check
    settings = configs.read(config, overrides)
    dataset, ruler = open_dataset(source, settings.data.on_error, settings.data.graded), Ruler.of(settings.backbone)
    return judged(settings, examine(dataset, ruler.count, None, progress), ruler)


@dataclass(frozen=True)
class Start:
    """What a trial starts with."""

    config: TrialConfig
    datasets: Mapping[str, Dataset | LabelledDataset]
    """By the names that the config calls them; those that are missing are opened later."""


def start_of(what: str, overrides: Sequence[str], folder: Path, resume: bool, say: Say, onward: Onward | None = None) -> Start:
    """The settings of `twofold train WHAT` and the datasets, checked and said. Raises DataError where the check finds an error.

    WHAT is a TOML file, or a dataset for which settings are made. With `resume`, those of an earlier start below `folder` stay:
    what would be made may have changed with the machine. Nothing is checked for a trial that is finished.
    """
    made = None
    if what.endswith(".toml"):
        if onward is not None and onward.add:
            raise ConfigError('--add goes with a dataset; a TOML file says itself what is added: method.name = "add_expert" and its tasks')
        config = configs.read(what, [*([f"start={json.dumps(onward.start)}"] if onward else []), *overrides])
    else:
        kept = folder / preliminary(what, overrides, onward).name / "config.toml"
        if not (resume and kept.is_file()):
            labels = onward is not None and onward.learns_labels()
            made = labels_for(what, overrides, onward) if onward and labels else config_for(what, overrides, onward=onward)
        config = configs.read(kept, overrides) if made is None else made.config
    config = with_start(config)
    if (folder / config.name / "model").is_dir():
        return Start(config, {})
    if made is not None:
        say(f"settings made for {what}; --set a.b=c changes them, {folder / config.name / 'config.toml'} will hold all:\n\n{made.text}")
    datasets = opened(config, made.datasets if made else {})
    for dataset in datasets.values():
        for line in labels_in_short(dataset) if isinstance(dataset, LabelledDataset) else ():
            say(line)
    ranking = {name: dataset for name, dataset in datasets.items() if isinstance(dataset, Dataset)}
    check_before(config, ranking, {what: made.check.facts} if made and made.check else {}, say)
    return Start(config, datasets)


def opened(config: TrialConfig, given: Mapping[str, Dataset | LabelledDataset]) -> dict[str, Dataset | LabelledDataset]:
    """The datasets that the tasks of a trial learn from, each by the kind that its task reads; those `given` are open already."""
    found = dict(given)
    for task, settings in config.tasks.items():
        for name in settings.data or config.data.train:
            if name not in found:
                labels = reads(task) is Labelled
                found[name] = (
                    open_labelled(name, config.data.on_error) if labels else open_dataset(name, config.data.on_error, config.data.graded)
                )
    return found
