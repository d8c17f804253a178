"""From a spec to a model: the same every time, the backbone frozen, lengths within the backbone's positions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.model.conftest import BOTH, PLANS
from tests.tiny import tiny_model
from twofold.backbone.backbone import Backbone
from twofold.backbone.load import load_model
from twofold.errors import ConfigError
from twofold.model.build import build_model
from twofold.model.spec import ModelSpec

Backbones = Callable[[str], str]


def test_the_same_spec_gives_the_same_model_and_leaves_the_random_state(backbones: Backbones) -> None:
    spec = ModelSpec(backbones("bert"), BOTH, PLANS["soft"], seed=5, query_length=12)
    before = torch.get_rng_state()
    one = build_model(spec).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.randn(3)
    two = build_model(spec).state_dict()
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_another_seed_gives_other_experts(backbones: Backbones) -> None:
    one, two = (build_model(ModelSpec(backbones("bert"), BOTH, PLANS["soft"], seed=seed, query_length=12)).state_dict() for seed in (0, 1))
    assert any(not torch.equal(one[name], two[name]) for name in one if ".bank.a." in name)


def test_only_the_backbone_is_frozen(backbones: Backbones) -> None:
    for group, members in build_model(ModelSpec(backbones("bert"), BOTH, PLANS["soft"], query_length=12)).groups().items():
        assert all(parameter.requires_grad == (group != "backbone") for _, parameter in members), group


def test_an_untrained_mixture_gives_the_backbones_vectors(backbones: Backbones) -> None:
    bare, mixed = (build_model(ModelSpec(backbones("bert"), BOTH, PLANS[plan], query_length=12)) for plan in ("none", "soft"))
    texts = ["the red fox", "a lazy dog runs over it"]
    assert abs(bare.encode(texts) - mixed.encode(texts)).max() < 1e-6


def test_lengths_stay_within_the_positions(backbones: Backbones) -> None:
    tokens = build_model(ModelSpec(backbones("bert"), BOTH, max_length=1000, pair_length=1000, query_length=12)).tokens
    assert (tokens.max_length, tokens.pair_length) == (64, 64)
    assert Backbone(tiny_model("roberta")).position_limit == 62


def test_what_does_not_exist_is_named(backbones: Backbones) -> None:
    with pytest.raises(ConfigError, match="retreive.*retrieve"):
        build_model(ModelSpec(backbones("bert"), {"retreive": {}}, query_length=12))
    with pytest.raises(ConfigError, match="not installed; pip install no-such-package"):
        load_model("package:no-such-package")
