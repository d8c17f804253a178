"""Methods, members and stages refuse what makes no sense."""

from __future__ import annotations

import pytest

from twofold.methods import Member, Method, Stage, expert_of


def test_a_task_is_served_once() -> None:
    first, second = Member("a", ("retrieve", "rerank"), ()), Member("b", ("rerank",), ())
    assert Method("m", (first,)).serves == ("retrieve", "rerank")
    with pytest.raises(ValueError, match="served by two members"):
        Method("m", (first, second))


@pytest.mark.parametrize("tasks", [(), ("rerank",), ("retrieve", "rerank")])
def test_a_stage_learns_what_its_member_serves(tasks: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="stage 's' learns"):
        Member("a", ("retrieve",), (Stage("s", tasks, ("expert:*",)),))


def test_a_share_is_positive() -> None:
    with pytest.raises(ValueError, match="share 0"):
        Stage("s", ("retrieve",), ("expert:*",), share=0.0)


def test_experts_are_named_after_their_task() -> None:
    assert [expert_of(task) for task in ("retrieve", "rerank", "classify")] == ["embedding", "reranking", "classify"]
