"""`soft`: learned weights of the input, per sequence or token, with or without the task."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.routers.roster import EXPERTS, LENGTHS, build, weights, widen


def test_it_starts_near_one_for_every_expert_so_that_a_mixture_starts_at_the_scale_of_one_lora() -> None:
    weight, level = weights(build("soft"))
    assert level == "sequence" and weight.shape == (2, 3)
    torch.testing.assert_close(weight, torch.ones(2, 3), rtol=0, atol=0.2)
    torch.testing.assert_close(weight.sum(-1), torch.full((2,), 3.0))


@pytest.mark.parametrize("options", [{}, {"hidden": 5}, {"level": "token"}, {"hidden": 5, "level": "token"}, {"activation": "sigmoid"}])
def test_weights_sum_to_the_total_over_what_a_task_sees(options: dict[str, Any]) -> None:
    for total, want in ((None, (2.0, 3.0)), (1.0, (1.0, 1.0))):
        weight, level = weights(widen(build("soft", total=total, **options)), ("retrieve", "rerank"))
        sums = weight.sum(-1).flatten()
        lengths = torch.tensor(LENGTHS if level == "token" else (1, 1))
        torch.testing.assert_close(sums, torch.tensor(want).repeat_interleave(lengths))


def test_the_linear_score_is_a_softmax_of_the_segments_mean() -> None:
    router = widen(build("soft"))
    x = torch.randn(1, sum(LENGTHS), 8, generator=torch.Generator().manual_seed(0))
    for s, part in enumerate(x[0].split(list(LENGTHS))):
        score = torch.cat([router.row[e] @ part.mean(0) + router.bias[e] + router.bias[f"rerank>{e}"] for e in EXPERTS])
        torch.testing.assert_close(weights(router)[0][s], 3 * score.softmax(-1))


def test_the_mlp_score_has_one_hidden_layer() -> None:
    router = widen(build("soft", hidden=5, activation="sigmoid", temperature=2.0, total=1.0))
    assert router.hidden.shape == (5, 8)
    x = torch.randn(1, sum(LENGTHS), 8, generator=torch.Generator().manual_seed(0))
    for s, part in enumerate(x[0].split(list(LENGTHS))):
        hidden = F.gelu(router.hidden @ part.mean(0))
        score = torch.cat([router.row[e] @ hidden + router.bias[e] + router.bias[f"rerank>{e}"] for e in EXPERTS])
        raised = (score / 2).sigmoid()
        torch.testing.assert_close(weights(router)[0][s], raised / raised.sum())


def test_only_a_router_that_is_told_the_task_decides_by_it() -> None:
    told, blind = widen(build("soft")), widen(build("soft", task_input=False))
    with torch.no_grad():
        assert set(blind.bias) == set(EXPERTS) and set(told.bias) > set(EXPERTS)
        assert "retrieve>c" not in told.bias  # a task has no number for what it does not see
        for router, same in ((told, False), (blind, True)):
            retrieve, rerank = (weights(router, task)[0][:, :2] for task in ("retrieve", "rerank"))
            shares = [weight / weight.sum(-1, keepdim=True) for weight in (retrieve, rerank)]
            assert torch.allclose(*shares, atol=1e-5) == same


def test_it_works_in_half_precision_weights() -> None:
    weight, _ = weights(widen(build("soft", hidden=5)).to(torch.bfloat16))
    assert weight.dtype == torch.float32 and weight.isfinite().all()


@pytest.mark.parametrize("wrong", [{"level": "word"}, {"activation": "relu"}, {"temperature": -1.0}])
def test_wrong_options_are_refused_when_it_is_built(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        build("soft", **wrong)
