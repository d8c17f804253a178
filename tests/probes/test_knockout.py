"""Experts taken out of models in which it is known what each of them does."""

from __future__ import annotations

import pytest

from tests.probes.conftest import SOFT, MakeSystem
from twofold.core.inject import LayerPlan
from twofold.data.sources import Dataset
from twofold.errors import ConfigError
from twofold.probes.knockout import run

ONE_USED = LayerPlan(SOFT.experts, sees={"retrieve": ("embedding",), "rerank": ("embedding",)}, router="by_task")


def test_an_unused_expert_is_missed_by_nobody_and_the_only_used_one_is_the_model(make: MakeSystem, dataset: Dataset) -> None:
    report = run(make(ONE_USED, size=1.0), dataset, split="train", queries=12, groups=("all", "early", "late"))
    facts, rows = report["facts"], report["tables"]["knockouts"]
    assert {row["layers"] for row in rows} == {"all", "early", "late"}
    for row in rows:
        whole, base = facts[f"{row['task']}_whole"], facts[f"{row['task']}_base"]
        assert whole != base  # or there is nothing to see
        if row["expert"] != "embedding":
            assert row["change"] == row["low"] == row["high"] == 0 and row["score"] == whole
        elif row["layers"] == "all":
            assert row["score"] == base


def test_the_share_of_a_gain(make: MakeSystem, dataset: Dataset) -> None:
    """Where there is a gain, the only expert carries all of it, and the others nothing."""
    report = run(make(ONE_USED, size=1.0), dataset, split="train", queries=12)
    for row in report["tables"]["knockouts"]:
        only = row["expert"] == "embedding"
        assert row["lost"] in (None, 100 if only else 0) and row["kept"] in (None, 100 if only else 0)


def test_unknown_groups_and_ways_are_named(make: MakeSystem, dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="did you mean 'late'"):
        run(make(), dataset, groups=("lat",))
    with pytest.raises(ConfigError, match="no experts"):
        run(make(LayerPlan()), dataset)
