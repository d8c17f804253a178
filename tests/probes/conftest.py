"""A tiny model with experts, tiny data, and systems of any plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_trial import stirred, tiny_unified, write_backbone, write_beir
from twofold.core.inject import Expert, LayerPlan
from twofold.data.sources import Dataset, open_dataset
from twofold.model.system import System

MakeSystem = Callable[..., System]
NAMES = ("embedding", "reranking", "shared")
SOFT = LayerPlan(tuple(Expert(name, 2) for name in NAMES), router="soft")


@pytest.fixture(scope="package")
def backbone_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("probes") / "backbone")


@pytest.fixture(scope="package")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(write_beir(tmp_path_factory.mktemp("probes") / "tiny"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOFOLD_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def make(backbone_dir: Path) -> MakeSystem:
    """A system of one model with a plan, its experts, routers and heads moved away from their start."""

    def built(plan: LayerPlan = SOFT, size: float = 0.05, **tasks: Any) -> System:
        return System.of(stirred(tiny_unified(backbone_dir, plan, **tasks), size=size).eval())

    return built
