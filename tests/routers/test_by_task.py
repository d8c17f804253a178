"""`by_task`: a task's own experts, whole, and nothing else."""

from __future__ import annotations

import pytest

from tests.routers.roster import build, weights
from twofold.core.routing import Roster


def test_it_is_one_where_the_task_sees_the_expert() -> None:
    assert weights(build("by_task"), "retrieve")[0].tolist() == [[1, 1]]
    assert weights(build("by_task"), ("retrieve", "rerank"))[0].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_it_refuses_a_plan_in_which_nothing_depends_on_the_task() -> None:
    with pytest.raises(ValueError, match="at least one task fewer"):
        build("by_task", Roster(("a", "b"), {"retrieve": ("a", "b"), "rerank": ("b", "a")}))
    build("by_task", Roster(("a",), {"retrieve": ("a",)}))
