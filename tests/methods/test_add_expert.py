"""One expert for each new job: a task of its own, or all tasks of one variant together."""

from __future__ import annotations

from twofold.methods.add_expert import build, expert_for


def test_a_variants_tasks_share_an_expert() -> None:
    (member,) = build(tasks=("retrieve:legal", "rerank:legal"), rank=4).members
    assert [(expert.name, expert.rank) for expert in member.plan.experts] == [("domain:legal", 4)]
    assert member.plan.sees == {"retrieve:legal": ("domain:legal",), "rerank:legal": ("domain:legal",)}
    assert member.stages[0].trains == ("expert:domain:legal", "router", "head:*")


def test_another_task_has_its_own() -> None:
    (member,) = build(tasks=("classify", "classify:banking77")).members
    assert [expert.name for expert in member.plan.experts] == ["classify", "classify:banking77"]
    assert member.beside == {}
    assert expert_for("answer") == "answer"


def test_what_it_sees_besides_can_be_said() -> None:
    (member,) = build(tasks=("classify",), beside=("shared",)).members
    assert member.beside == {"classify": ("shared",)}
