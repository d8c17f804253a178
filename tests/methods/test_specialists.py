"""Two models, one per task."""

from __future__ import annotations

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


def test_an_unknown_form_is_named() -> None:
    with pytest.raises(ValueError, match="form 'half'"):
        build(tasks=TASKS, form="half")
