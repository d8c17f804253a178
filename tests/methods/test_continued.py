"""It names what goes on learning and adds nothing."""

from __future__ import annotations

from twofold.methods.continued import build


def test_all_or_only_some_experts_go_on() -> None:
    assert build(tasks=("retrieve",)).members[0].stages[0].trains == ("expert:*", "router", "head:*")
    (member,) = build(tasks=("retrieve", "rerank"), experts=("shared",), router=False).members
    assert member.stages[0].trains == ("expert:shared", "head:*")
    assert member.plan.experts == ()
