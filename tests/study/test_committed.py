"""Every arm of the committed studies trains and is measured: a grid on rented hardware is no place to learn that one does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.study.conftest import tiny_values
from twofold import toml
from twofold.study.file import make
from twofold.study.sample import Samples
from twofold.study.store import Store
from twofold.study.work import Worker

NAMES = ("interference", "third_task", "transfer", "capacity", "domain", "specialists", "small")
"""The others have no arm that is in none of these, but `rivals`, whose methods are trained in tests/methods."""
LABELLED = "banking77"


def write_labels(folder: Path) -> Path:
    """Texts of two kinds."""
    folder.mkdir()
    for split in ("train", "test"):
        lines = [f'{{"text": "{kind} {i} of {split}", "label": "{kind}"}}\n' for i in range(12) for kind in ("beans", "peas")]
        (folder / f"{split}.jsonl").write_text("".join(lines))
    return folder


def named(value: Any, names: dict[str, str]) -> Any:
    """A table with datasets' names changed wherever they are."""
    if isinstance(value, dict):
        return {key: named(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return list(dict.fromkeys(names.get(each, each) for each in value)) if all(isinstance(each, str) for each in value) else value
    return value


def tiny(name: str, backbone: Path, beir: Path, labels: Path) -> dict[str, Any]:
    """A committed study's arms and first data, with all else as small as can be."""
    own, values = toml.read(ROOT / "studies" / f"{name}.toml"), tiny_values(backbone, beir)
    names = {each: str(beir) for each in ("squad", "scifact", "medquad")} | {LABELLED: str(labels)}
    label, data = next(iter(own["data"].items()))
    data = {key: value for key, value in data.items() if key not in ("documents", "train_queries", "arms")}
    arms = {arm: {key: value for key, value in content.items() if key not in ("seeds", "data")} for arm, content in own["arms"].items()}
    values["base"]["optim"] = {"steps": 1}
    about = {"name": "tiny", "title": name, "seeds": [0]}
    return {**values, "study": about, "sweep": {}, "data": {label: named(data, names)}, "arms": named(arms, names)}


def new_arms(values: dict[str, Any], seen: set[str]) -> Iterator[str]:
    """Arms that are not in `seen`, each after the one that it starts from; they are then."""
    for arm, content in values["arms"].items():
        key = repr((content["method"], content.get("tasks"), content.get("start"), content.get("settings"), values["data"]))
        if key not in seen:
            seen.add(key)
            yield from (each for each in (content.get("start"), arm) if each)


@pytest.mark.slow
def test_every_arm_of_the_committed_studies_trains(made: tuple[Path, Path], tmp_path: Path) -> None:
    labels, seen = write_labels(tmp_path / "labels"), set[str]()
    for name in NAMES:
        values = tiny(name, *made, labels)
        values["arms"] = {arm: values["arms"][arm] for arm in dict.fromkeys(new_arms(values, seen))}
        if not values["arms"]:
            continue
        study = make(values, name)
        worker = Worker(Store(study, tmp_path / "results" / name, Samples(study.measure)), tmp_path / "trials")
        progress = worker.run()
        assert (worker.failed, worker.missing, progress.cells_done) == ({}, set(), len(values["arms"])), name
