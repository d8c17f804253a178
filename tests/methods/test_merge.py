"""Merging as PEFT merges, as the papers' formulas read, and `cat` as the sum that it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils.merge_utils import dare_linear
from torch import Tensor, nn

from tests.methods.conftest import APART, THREE
from tests.reference import experts as reference
from tests.tiny_trial import stirred, tiny_unified
from twofold.core.inject import LayerPlan, mixtures
from twofold.errors import ConfigError
from twofold.methods._changes import route_over
from twofold.methods.merge import build, cut, merged
from twofold.model.unified import UnifiedModel

TASKS = ("retrieve", "rerank")
TEXTS, PAIRS = ["ba du", "fe gi ho"], [("ba", "du fe"), ("gi", "ho")]


def some(count: int = 3, rank: int = 2) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(6, rank, generator=draw) @ torch.randn(rank, 5, generator=draw) for _ in range(count)]


def merge(model: UnifiedModel, **options: Any) -> None:
    (member,) = build(tasks=TASKS, **options).members
    assert member.before is not None
    member.before(model, lambda task, step: [])


def test_cat_is_the_sum_of_the_experts(specialists: UnifiedModel) -> None:
    route_over("uniform", {}, "linear")(specialists, lambda task, step: [])
    vectors, scores = specialists.encode(TEXTS), specialists.score(PAIRS)
    merge(specialists)
    assert [(expert.name, expert.rank) for expert in specialists.spec.plan.experts] == [("merged", 7)]
    np.testing.assert_allclose(specialists.encode(TEXTS), vectors, atol=1e-5)
    np.testing.assert_allclose(specialists.score(PAIRS), scores, atol=1e-4)


def test_weights_scale_the_sum(specialists: UnifiedModel) -> None:
    want = [0.5 * layer.bank.delta(torch.ones(3), layer.roster.experts) for layer in mixtures(specialists)]
    merge(specialists, weight=0.5)
    for layer, each in zip(mixtures(specialists), want, strict=True):
        torch.testing.assert_close(layer.bank.delta(torch.ones(1), ("merged",)), each, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("kind", "peers"), [("cat", "cat"), ("svd", "svd"), ("ties", "ties_svd")])
def test_a_layer_is_merged_as_peft_merges_it(specialists: UnifiedModel, kind: str, peers: str) -> None:
    layer = next(mixtures(specialists))
    base = nn.Sequential(nn.Linear(32, 32, bias=False))
    names = list(layer.roster.experts)
    peer: Any = None
    for name in names:
        rank = layer.bank.ranks[name]  # type: ignore[index, union-attr]
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["0"])
        peer = get_peft_model(base, config, name) if peer is None else peer
        if name != names[0]:
            peer.add_adapter(name, config)
        module = peer.base_model.model[0]
        module.lora_A[name].weight.data = layer.bank.a[name].data.clone()  # type: ignore[index, union-attr]
        module.lora_B[name].weight.data = layer.bank.b[name].data.clone()  # type: ignore[index, union-attr]
    peer.add_weighted_adapter(names, [0.7] * 3, "all", combination_type=peers, density=0.4, svd_rank=4)
    want = peer.base_model.model[0].get_delta_weight("all")
    merge(specialists, kind=kind, rank=4, weight=0.7, density=0.4)
    layer = next(mixtures(specialists))
    torch.testing.assert_close(layer.bank.delta(torch.ones(1), ("merged",)), want, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
def test_ties_is_its_formula(density: float) -> None:
    found = merged(some(), "ties", 1.0, density, torch.Generator())
    torch.testing.assert_close(found, reference.ties(some(), density))


def test_dare_is_pefts_for_the_same_draw() -> None:
    found = merged(some(), "dare", 0.7, 0.4, torch.Generator().manual_seed(5))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        want = dare_linear(some(), torch.tensor([0.7] * 3), 0.4)
    torch.testing.assert_close(found, want)
    mean = torch.stack([merged(some(), "dare", 1.0, 0.4, torch.Generator().manual_seed(i)) for i in range(4000)]).mean(0)
    torch.testing.assert_close(mean, torch.stack(some()).sum(0), rtol=0.1, atol=0.25)


def test_a_cut_is_the_nearest_of_its_rank() -> None:
    whole = some(1, rank=3)[0]
    a, b = cut(whole, 3)
    torch.testing.assert_close(b @ a, whole, rtol=1e-4, atol=1e-5)
    a, b = cut(whole, 1)
    torch.testing.assert_close((whole - b @ a).norm() ** 2, torch.linalg.svdvals(whole)[1:].square().sum())


def test_dare_is_the_same_again(specialists: UnifiedModel, backbone_dir: Path) -> None:
    twin = stirred(tiny_unified(backbone_dir, LayerPlan(THREE, sees=APART, router="by_task"))).eval()
    for model in (specialists, twin):
        merge(model, kind="dare", density=0.5)
    assert np.array_equal(specialists.encode(TEXTS), twin.encode(TEXTS))


@pytest.mark.parametrize("options", [{"kind": "mean"}, {"rank": 0}, {"density": 0.0}, {"density": 1.5}])
def test_what_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="use cat, svd, ties or dare"):
        build(tasks=TASKS, **options)


def test_there_must_be_experts(backbone_dir: Path) -> None:
    with pytest.raises(ConfigError, match="has no experts"):
        merge(tiny_unified(backbone_dir))
