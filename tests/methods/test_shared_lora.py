"""One expert for all tasks."""

from __future__ import annotations

from twofold.methods.shared_lora import build


def test_all_tasks_see_the_one_expert() -> None:
    (member,) = build(tasks=("retrieve", "rerank"), rank=8, targets="query|value").members
    (stage,) = member.stages
    assert stage.tasks == ("retrieve", "rerank")
    assert stage.trains == ("expert:*", "head:*")
    assert [(expert.name, expert.rank, expert.scale) for expert in member.plan.experts] == [("shared", 8, 2.0)]
    roster = member.plan.roster(member.serves)
    assert roster.visible(("retrieve",)) == roster.visible(("rerank",)) == ("shared",)
    assert member.plan.targets == "query|value"


def test_its_default_rank_is_the_total_of_three_experts_of_eight() -> None:
    assert build(tasks=("retrieve",)).members[0].plan.experts[0].rank == 24
