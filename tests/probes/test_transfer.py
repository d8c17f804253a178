"""What one expert carries, in models in which that is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.probes.conftest import SOFT, MakeSystem
from tests.probes.test_knockout import ONE_USED
from twofold.core.inject import LayerPlan
from twofold.data.sources import Dataset
from twofold.errors import ConfigError
from twofold.model.folder import save
from twofold.probes.transfer import run

ONLY_SHARED = LayerPlan(SOFT.experts, sees={"retrieve": ("shared",), "rerank": ("shared",)}, router="by_task")


def test_the_only_used_expert_carries_everything(make: MakeSystem, dataset: Dataset) -> None:
    for row in run(make(ONLY_SHARED, size=1.0), dataset, split="train", queries=12)["tables"]["tasks"]:
        assert row["alone"] == row["whole"] == row["full"] != row["base"]
        assert row["share"] in (None, 100)


def test_an_unused_expert_carries_nothing(make: MakeSystem, dataset: Dataset) -> None:
    for row in run(make(ONE_USED, size=1.0), dataset, split="train", queries=12)["tables"]["tasks"]:
        assert row["alone"] == row["base"] != row["whole"]
        assert row["change"] == 0 and row["share"] in (None, 0)


def test_the_gain_may_be_another_models(make: MakeSystem, dataset: Dataset, tmp_path: Path) -> None:
    save(make(ONE_USED, size=1.0).embedder, tmp_path / "full")
    report = run(make(ONLY_SHARED, size=0.2), dataset, split="train", queries=12, full=str(tmp_path / "full"))
    assert all(row["full"] != row["whole"] for row in report["tables"]["tasks"])


def test_it_must_be_said_whose_share(make: MakeSystem, dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="did you mean 'shared'"):
        run(make(), dataset, expert="share")
