"""`uniform`: the same for all that a task sees."""

from __future__ import annotations

from tests.routers.roster import build, weights


def test_every_seen_expert_counts_one() -> None:
    assert weights(build("uniform"), "retrieve")[0].tolist() == [[1, 1]]
    weight, level = weights(build("uniform"), ("retrieve", "rerank"))
    assert weight.tolist() == [[1, 1, 0], [1, 1, 1]] and level == "sequence"


def test_a_total_is_shared_equally() -> None:
    assert weights(build("uniform", total=1.5), ("retrieve", "rerank"))[0].tolist() == [[0.75, 0.75, 0], [0.5, 0.5, 0.5]]
