"""A LoRA per domain for queries, none for documents."""

from __future__ import annotations

from twofold.methods.router_retriever import build

TASKS = ("retrieve", "rerank")


def test_who_sees_what() -> None:
    (member,) = build(tasks=TASKS, domains=("scifact", "fiqa"), rank=4).members
    roster = member.plan.roster(TASKS)
    assert roster.experts == ("embedding:scifact", "embedding:fiqa", "reranking")
    assert roster.visible(("retrieve/fiqa",)) == ("embedding:fiqa",)
    assert roster.visible(("retrieve/document",)) == ()
    assert roster.visible(("retrieve",)) == ("embedding:scifact", "embedding:fiqa")
    assert roster.visible(("rerank",)) == ("reranking",)
    assert member.options == {"retrieve": {"domains": ["scifact", "fiqa"]}}
    assert member.plan.router == "by_task" and member.stages[0].trains == ("expert:*", "head:*")


def test_the_default_total_is_twenty_four() -> None:
    assert sum(expert.rank for expert in build(tasks=TASKS).members[0].plan.experts) == 24
