"""A twin keeps every expert and head of the model that it starts from, and changes only what its rule says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.methods.conftest import THREE
from tests.tiny_trial import stirred, tiny_examples, tiny_unified
from twofold.core.inject import LayerPlan, mixtures
from twofold.errors import ConfigError
from twofold.methods.twin import RULES, build
from twofold.model.unified import UnifiedModel
from twofold.records import Example

TASKS = ("retrieve", "rerank")
TEXTS = ["ba du", "fe gi ho", "la me", "no pu ra si"]


def batches(task: str, step: int) -> list[Example]:
    return tiny_examples(3, seed=step + 10 * TASKS.index(task))


def soft(backbone_dir: Path, router: str = "soft", scope: str = "linear") -> UnifiedModel:
    return stirred(tiny_unified(backbone_dir, LayerPlan(THREE, router=router, scope=scope)), size=0.3).eval()


def apply(model: UnifiedModel, **options: object) -> UnifiedModel:
    (member,) = build(tasks=TASKS, **options).members  # type: ignore[arg-type]
    assert member.stages == () and member.after is not None
    member.after(model, batches)
    return model.eval()


@pytest.mark.parametrize("rule", RULES)
def test_experts_and_heads_are_the_very_same(backbone_dir: Path, rule: str) -> None:
    model = soft(backbone_dir)
    banks, heads = [layer.bank for layer in mixtures(model)], {name: value.clone() for name, value in model.tasks.state_dict().items()}
    vectors = model.encode(TEXTS)
    apply(model, rule=rule)
    assert all(layer.bank is bank for layer, bank in zip(mixtures(model), banks, strict=True))
    assert all(torch.equal(value, heads[name]) for name, value in model.tasks.state_dict().items())
    assert not np.allclose(model.encode(TEXTS), vectors, atol=1e-5)


@pytest.mark.parametrize("scope", ["linear", "block"])
def test_hard_gives_all_weight_to_the_largest(backbone_dir: Path, scope: str) -> None:
    model = soft(backbone_dir, scope=scope)
    first = next(mixtures(model)).layer  # later layers read what the changed ones before them give
    before = model.routings(texts=TEXTS)[first].weight
    after = apply(model, rule="hard").routings(texts=TEXTS)[first].weight
    torch.testing.assert_close(after, 3.0 * torch.nn.functional.one_hot(before.argmax(-1), 3).float())


def test_permuted_gives_the_weights_of_training_inputs(backbone_dir: Path) -> None:
    model = soft(backbone_dir)
    rows = [example for step in range(2) for example in batches("rerank", step)]
    found = model.routings(pairs=[(each.query, document) for each in rows for document in each.documents])
    seen = {layer: routing.weight for layer, routing in found.items()}
    apply(model, rule="permuted", batches=2, donors=8)
    for layer, routing in model.routings(pairs=list(zip(TEXTS, TEXTS[::-1], strict=True))).items():
        assert torch.cdist(routing.weight, seen[layer]).min(1).values.max() < 1e-4
    other = apply(soft(backbone_dir), rule="permuted", batches=2, donors=8)
    np.testing.assert_array_equal(model.encode(TEXTS), other.encode(TEXTS))


def test_only_a_soft_mixture_has_a_twin(backbone_dir: Path) -> None:
    with pytest.raises(ConfigError, match="'uniform' routes the model to start from: it should be 'moe_lora'"):
        apply(soft(backbone_dir, router="uniform"), rule="hard")
    with pytest.raises(ValueError, match="rule 'soft', batches 8; use mean, hard, permuted"):
        build(tasks=TASKS, rule="soft")
