"""What `twofold methods --json` says: counts against hand counts, on the shapes of MiniLM-L6."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from transformers.utils import logging

from twofold.errors import ConfigError
from twofold.train.costs import WORDS, counting

BLOCK = 4 * (384 + 384) + 2 * (384 + 1536)
"""Features in and out of the six linear layers of a block, added up."""
RANK = 24
"""The default of one LoRA for all tasks."""


@pytest.fixture(scope="module")
def cost() -> Iterator[Callable[[str], dict[str, Any]]]:
    with counting() as found:
        yield found


def test_one_lora_is_counted_right(cost: Callable[[str], dict[str, Any]]) -> None:
    facts = cost("shared_lora")
    lora = 6 * BLOCK * RANK
    assert facts["extra_flops_per_token"] == {"retrieve": 2 * lora, "rerank": 2 * lora}
    assert facts["parameters"]["active"]["retrieve"] == lora
    blocks = 6 * (4 * 384 * 384 + 4 * 384 + 2 * 384 * 1536 + 1536 + 384 + 4 * 384)
    assert facts["parameters"]["backbone"] == (WORDS + 512 + 2 + 2) * 384 + blocks
    assert facts["folds"] == {"retrieve": True, "rerank": True}
    (member,) = facts["members"]
    assert [stage["tasks"] for stage in member["stages"]] == [["retrieve", "rerank"]]


def test_ours_adds_its_routers_and_does_not_fold(cost: Callable[[str], dict[str, Any]]) -> None:
    facts, shared = cost("moe_lora"), cost("shared_lora")
    assert facts["folds"] == {"retrieve": False, "rerank": False}
    assert facts["extra_flops_per_token"]["retrieve"] > shared["extra_flops_per_token"]["retrieve"]


def test_a_task_of_hard_loras_pays_for_its_own_alone(cost: Callable[[str], dict[str, Any]]) -> None:
    facts, shared = cost("hard_lora"), cost("shared_lora")
    assert 2 * facts["extra_flops_per_token"]["rerank"] == shared["extra_flops_per_token"]["rerank"]
    assert facts["source"] == ["arXiv:2409.10173"]


def test_nothing_costs_nothing(cost: Callable[[str], dict[str, Any]]) -> None:
    facts = cost("zero_shot")
    assert facts["extra_flops_per_token"] == {"retrieve": 0, "rerank": 0} and facts["parameters"]["trainable"] == 0
    assert facts["folds"] == {"retrieve": None, "rerank": None}


def test_frozen_specialists_are_made_for_those_that_start_from_them(cost: Callable[[str], dict[str, Any]]) -> None:
    facts = cost("mole")
    gates = 6 * (2 * RANK + 1)  # a block: two experts by the low-rank states of both, and a temperature
    assert facts["starts_from"] == "hard_lora" and facts["parameters"]["trainable"] == gates


def test_a_method_that_is_not_there(cost: Callable[[str], dict[str, Any]]) -> None:
    with pytest.raises(ConfigError, match="moe_lora"):
        cost("moe_lore")


def test_progress_bars_are_as_before() -> None:
    before = logging.is_progress_bar_enabled()
    with counting():
        assert not logging.is_progress_bar_enabled()
    assert logging.is_progress_bar_enabled() == before
