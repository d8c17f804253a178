"""Three experts and a learned router."""

from __future__ import annotations

import pytest

from twofold.methods.moe_lora import build

TASKS = ("retrieve", "rerank")


def test_all_experts_and_the_router_train_on_both_tasks() -> None:
    (member,) = build(tasks=TASKS).members
    (stage,) = member.stages
    assert stage.tasks == TASKS
    assert stage.trains == ("expert:*", "router", "head:*")
    assert [(expert.name, expert.rank) for expert in member.plan.experts] == [("embedding", 8), ("reranking", 8), ("shared", 8)]
    assert member.plan.roster(TASKS).visible(("rerank",)) == ("embedding", "reranking", "shared")


def test_options_reach_the_plan() -> None:
    plan = build(tasks=TASKS, experts=("a", "b"), ranks={"b": 2}, router="topk", router_options={"k": 1}, scope="block").members[0].plan
    assert [(expert.name, expert.rank) for expert in plan.experts] == [("a", 8), ("b", 2)]
    assert (plan.router, dict(plan.router_options), plan.scope) == ("topk", {"k": 1}, "block")


def test_a_rank_for_nobody_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"ranks for \['sharde'\]"):
        build(tasks=TASKS, ranks={"sharde": 4})
