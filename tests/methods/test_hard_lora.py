"""One expert per task, chosen by the task."""

from __future__ import annotations

from twofold.methods.hard_lora import build

TASKS = ("retrieve", "rerank")


def test_each_task_sees_its_own_expert_only() -> None:
    (member,) = build(tasks=TASKS, rank=4).members
    roster = member.plan.roster(TASKS)
    assert [roster.visible((task,)) for task in TASKS] == [("embedding",), ("reranking",)]
    assert member.plan.router == "by_task"
    assert [expert.rank for expert in member.plan.experts] == [4, 4]


def test_a_shared_expert_is_seen_by_all() -> None:
    (member,) = build(tasks=TASKS, rank=4, shared=2).members
    roster = member.plan.roster(TASKS)
    assert [roster.visible((task,)) for task in TASKS] == [("embedding", "shared"), ("reranking", "shared")]
    assert member.plan.experts[-1].rank == 2


def test_the_default_total_is_twenty_four() -> None:
    assert sum(expert.rank for expert in build(tasks=TASKS).members[0].plan.experts) == 24


def test_queries_and_passages_have_one_each() -> None:
    (member,) = build(tasks=TASKS, rank=8, sides=True, shared=2).members
    roster = member.plan.roster(TASKS)
    assert roster.experts == ("embedding:query", "embedding:document", "reranking", "shared")
    assert roster.visible(("retrieve/query",)) == ("embedding:query", "shared")
    assert roster.visible(("retrieve/document",)) == ("embedding:document", "shared")
    assert roster.visible(("rerank",)) == ("reranking", "shared")
    assert member.options == {"retrieve": {"sides": True}}
    assert sum(expert.rank for expert in build(tasks=TASKS, rank=8, sides=True).members[0].plan.experts) == 24
