"""A trained model to start from, on disk, for the methods that change one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_trial import stirred, tiny_unified, write_backbone
from twofold.core.inject import Expert, LayerPlan
from twofold.model.unified import UnifiedModel

THREE = (Expert("embedding", 2), Expert("reranking", 3), Expert("shared", 2))
APART = {"retrieve": ("embedding", "shared"), "rerank": ("reranking", "shared")}


@pytest.fixture(scope="session")
def backbone_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture
def specialists(backbone_dir: Path) -> UnifiedModel:
    """Hard experts of different ranks, and one that both tasks add; all of their parameters say something."""
    return stirred(tiny_unified(backbone_dir, LayerPlan(THREE, sees=APART, router="by_task"))).eval()
