"""A study of seconds: tiny trials of six steps on a made-up dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_trial import LENGTHS, write_backbone, write_beir
from twofold.study.file import Study, make
from twofold.study.grid import merge
from twofold.study.sample import Samples
from twofold.study.store import Store
from twofold.study.work import Worker


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A backbone and a dataset."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("study")
    return write_backbone(folder / "backbone"), write_beir(folder / "beir")


RULE = {"tested": "moe", "rivals": ["one", "mean"]}


def tiny_values(backbone: Path, beir: Path) -> dict[str, Any]:
    """Four arms, of which one has one task and one uses what another has trained; two seeds, two learning rates."""
    return {
        "study": {"name": "tiny", "title": "Is it small?", "seeds": [0, 1], **RULE},
        "sweep": {"lr": [1e-3, 5e-3]},
        "measure": {"queries": 4, "rerank_queries": 3, "depth": 5, "pipeline_depth": 5, "dev_queries": 4, "dev_depth": 5},
        "base": {
            "threads": 1,
            "device": "cpu",
            "backbone": dict(LENGTHS),
            "data": {"negatives": {"bm25_depth": 5, "model_depth": 0}},
            "tasks": {"retrieve": {"batch": 4, "negatives": 1}, "rerank": {"batch": 2, "negatives": 2}},
            "optim": {"steps": 4},
            "dev": {"queries": 4, "depth": 5},
            "checkpoint": {"every": 2},
        },
        "backbones": {"bert": {"backbone": {"name": str(backbone)}}},
        "data": {"made": {"train": [str(beir)]}},
        "arms": {
            "one": {"what": "one LoRA", "method": {"name": "shared_lora", "options": {"rank": 4}}},
            "alone": {"what": "one task", "method": {"name": "shared_lora", "options": {"rank": 4}}, "tasks": ["retrieve"]},
            "moe": {"what": "three experts", "method": {"name": "moe_lora", "options": {"rank": 2}}},
            "mean": {"what": "its mean", "method": {"name": "twin", "options": {"rule": "mean"}}, "start": "moe"},
        },
    }


MakeStudy = Callable[..., Study]
MakeStore = Callable[..., Store]


@pytest.fixture
def study(made: tuple[Path, Path]) -> MakeStudy:
    """Makes the tiny study with changes, table by table."""

    def build(**changes: Any) -> Study:
        values = tiny_values(*made)
        merge(values, changes)
        return make(values)

    return build


@pytest.fixture
def store(study: MakeStudy, tmp_path: Path) -> MakeStore:
    """Makes the store of a tiny study with changes."""

    def build(name: str = "tiny", **changes: Any) -> Store:
        found = study(**changes)
        return Store(found, tmp_path / "results" / name, Samples(found.measure))

    return build


@pytest.fixture(scope="session")
def finished(made: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The tiny study, done once."""
    folder = tmp_path_factory.mktemp("finished")
    found = make(tiny_values(*made))
    store = Store(found, folder / "results" / "tiny", Samples(found.measure))
    Worker(store, folder / "trials").run()
    return store
