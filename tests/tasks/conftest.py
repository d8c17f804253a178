"""One tiny backbone on disk for the tests of tasks, and models with stirred experts on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_trial import stirred, tiny_unified, write_backbone
from twofold.core.inject import Expert, LayerPlan
from twofold.model.unified import UnifiedModel

MakeModel = Callable[..., UnifiedModel]
PLAN = LayerPlan((Expert("embedding", 2), Expert("reranking", 2)), router="soft")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Several threads make tiny tensors slow, and on a busy machine very slow."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def backbone_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture
def make_model(backbone_dir: Path) -> MakeModel:
    """Two experts of rank 2 with a soft router; options of the tasks by name. Every call gives an equal model."""

    def make(**tasks: Any) -> UnifiedModel:
        return stirred(tiny_unified(backbone_dir, PLAN, **tasks))

    return make
