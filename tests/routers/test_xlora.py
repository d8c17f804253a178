"""`xlora`: one hidden state decides for all blocks behind it."""

from __future__ import annotations

import pytest
import torch

from tests.routers.roster import EXPERTS, LENGTHS, ROSTER, widen
from twofold import plugins
from twofold.core.routing import Batch, Router


def block(number: int, **options: object) -> Router:
    given = {"d_in": 8, "roster": ROSTER, "tasks": tuple(ROSTER.sees), "seed": 0, "key": f"layers.{number}"}
    made: Router = plugins.build_plugin("routers", "xlora", options, **given)
    return widen(made)


def test_every_block_reads_the_same_hidden_state() -> None:
    x = torch.randn(3, 1, sum(LENGTHS), 8)
    batch = Batch("rerank", LENGTHS)
    found = [block(i, after=1)(x[i], x[i], batch, EXPERTS) for i in range(3)]
    assert found[0][1] == "task" and (found[0][0] == 0).all()
    for i in (1, 2):
        weight, level, *_ = found[i]
        alone, *_ = block(i, after=1)(x[1], x[1], Batch("rerank", LENGTHS), EXPERTS)
        assert level == "token" and torch.equal(weight, alone)
        torch.testing.assert_close(weight.sum(-1), torch.ones(1, sum(LENGTHS)))


def test_a_weight_is_the_softmax_of_linear_scores_of_the_token() -> None:
    router, x = block(0), torch.randn(1, sum(LENGTHS), 8)
    weight, *_ = router(x, x, Batch("rerank", LENGTHS), EXPERTS)
    scored = dict(router.named_parameters())
    score = [scored[f"scored.row.{name}"][0] @ x[0, 2] + scored[f"scored.bias.{name}"][0] for name in EXPERTS]
    torch.testing.assert_close(weight[0, 2], torch.stack(score).softmax(-1))


@pytest.mark.parametrize("key", ["layers.0.query", "model"])
def test_it_decides_per_block(key: str) -> None:
    with pytest.raises(ValueError, match="use scope 'block'"):
        plugins.build_plugin("routers", "xlora", {}, d_in=8, roster=ROSTER, tasks=(), seed=0, key=key)
