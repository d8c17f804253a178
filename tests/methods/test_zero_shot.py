"""Nothing is trained."""

from __future__ import annotations

from twofold.methods.zero_shot import build


def test_it_has_no_stages_and_no_experts() -> None:
    (member,) = build(tasks=("retrieve", "rerank")).members
    assert member.stages == ()
    assert member.plan.experts == ()
    assert member.serves == ("retrieve", "rerank")
