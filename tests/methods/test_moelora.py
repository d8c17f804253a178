"""MOELoRA: weights of the task alone, so every task folds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.methods.joint import joint, train
from twofold.core.inject import mixtures
from twofold.methods.moelora import build

TASKS = ("retrieve", "rerank")


def test_experts_share_the_rank() -> None:
    (member,) = build(tasks=TASKS).members
    assert [expert.rank for expert in member.plan.experts] == [3] * 8
    with pytest.raises(ValueError, match="24 ranks for 7 experts"):
        build(tasks=TASKS, experts=7)


def test_a_trained_model_folds_for_each_task_with_the_same_vectors_and_scores(tmp_path: Path) -> None:
    setup = joint(tmp_path, "moelora", {"rank": 8, "experts": 4}, steps=6)
    train(setup)
    model, texts = setup.model, ["a red fox runs", "the lazy dog"]
    pairs = [(texts[0], texts[1]), (texts[1], texts[0])]
    weights = [
        torch.stack([layer.router.constant(task, layer.roster.experts) for task in TASKS]) for layer in mixtures(model.backbone.model)
    ]  # type: ignore[misc]
    assert any((each[0] - each[1]).abs().max() > 1e-3 for each in weights)  # the tasks weigh the experts differently
    vectors, scores = model.encode(texts), model.score(pairs)
    model.fold("retrieve")
    assert abs(model.encode(texts) - vectors).max() < 1e-5
    with pytest.raises(RuntimeError, match="folded for task 'retrieve'"):
        model.score(pairs)
    model.fold("rerank")
    assert abs(model.score(pairs) - scores).max() < 1e-4
    model.unfold()
    assert (model.encode(texts) == vectors).all() and (model.score(pairs) == scores).all()


def test_the_folded_matrix_is_the_weighted_sum_of_the_experts(tmp_path: Path) -> None:
    setup = joint(tmp_path, "moelora", {"rank": 6, "experts": 3}, steps=3)
    train(setup)
    layer = next(mixtures(setup.model.backbone.model))
    before = layer.linear.weight.detach().clone()  # type: ignore[union-attr]
    weight_E = torch.cat([layer.router.score[f"rerank>e{i}"] for i in range(3)]).softmax(0) * 3  # type: ignore[index]
    want = before + sum(2.0 * weight_E[i] * layer.bank.b[f"e{i}"] @ layer.bank.a[f"e{i}"] for i in range(3))  # type: ignore[index]
    layer.fold("rerank")
    torch.testing.assert_close(layer.linear.weight.detach(), want.detach(), rtol=1e-5, atol=1e-6)  # type: ignore[union-attr]
