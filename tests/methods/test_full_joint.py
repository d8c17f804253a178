"""One model, all of it, both losses."""

from __future__ import annotations

from twofold.methods.full_joint import build

TASKS = ("retrieve", "rerank")


def test_all_parameters_learn_both_tasks_in_every_step() -> None:
    (member,) = build(tasks=TASKS).members
    (stage,) = member.stages
    assert (stage.tasks, stage.trains, stage.combine) == (TASKS, ("backbone", "head:*"), None)
    assert member.plan.experts == () and member.options == {"retrieve": {"temperature": 0.02}}


def test_only_embedding_attends_both_ways() -> None:
    assert build(tasks=(*TASKS, "retrieve:legal")).members[0].both_ways == ("retrieve", "retrieve:legal")
    assert build(tasks=TASKS, both_ways=False).members[0].both_ways == ()
