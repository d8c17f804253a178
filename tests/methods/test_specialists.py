"""Two models, one per task."""

from __future__ import annotations

from typing import Any

import pytest

from twofold.methods.specialists import build

TASKS = ("retrieve", "rerank")


def test_full_specialists_train_their_backbones() -> None:
    members = build(tasks=TASKS).members
    assert [member.serves for member in members] == [("retrieve",), ("rerank",)]
    assert [member.stages[0].trains for member in members] == [("backbone", "head:*")] * 2
    assert not any(member.plan.experts for member in members)


def test_lora_specialists_have_one_expert_each() -> None:
    members = build(tasks=TASKS, form="lora", rank=6).members
    assert [[(expert.name, expert.rank) for expert in member.plan.experts] for member in members] == [
        [("embedding", 6)],
        [("reranking", 6)],
    ]
    assert [member.stages[0].trains for member in members] == [("expert:*", "head:*")] * 2


def test_qwen3s_losses_are_options_of_the_tasks() -> None:
    embedder, reranker = build(tasks=TASKS, losses="qwen3", merge=3).members
    assert embedder.options == {"retrieve": {"query_negatives": True, "document_negatives": True, "margin": 0.1}}
    assert reranker.options == {"rerank": {"loss": "bce", "scale": 5.0}}
    assert embedder.merge == reranker.merge == 3
    assert all(member.options == {} and member.merge == 0 for member in build(tasks=TASKS).members)


@pytest.mark.parametrize("wrong", [{"losses": "bert"}, {"merge": -1}, {"form": "lora", "merge": 2}])
def test_what_makes_no_sense_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        build(tasks=TASKS, **wrong)


def test_an_unknown_form_is_named() -> None:
    with pytest.raises(ValueError, match="form 'half'"):
        build(tasks=TASKS, form="half")
