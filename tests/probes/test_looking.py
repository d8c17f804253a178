"""What layers see, and experts' matrices."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from tests.probes.conftest import SOFT, MakeSystem
from twofold.core.inject import LayerPlan
from twofold.core.routing import Bank
from twofold.data.sources import Dataset
from twofold.probes._looking import block_name, factors, layers_of, module_name, observe, pooled, routing_of
from twofold.probes._material import Pass, ranking_passes, sample
from twofold.tasks import unit_vectors


def first_pass(make: MakeSystem, dataset: Dataset, plan: LayerPlan = SOFT, side: str = "document") -> Pass:
    passes = ranking_passes(make(plan), sample(dataset, "train", 5), [])
    return next(each for each in passes if each.side == side)


def test_layers_are_seen_in_the_callers_order_and_in_chunks(make: MakeSystem, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    one = first_pass(make, dataset)
    whole = observe(one, lambda _, __, y: {"y": pooled(y)})
    monkeypatch.setattr("twofold.probes._looking.TOKEN_BUDGET", 1)
    alone = observe(one, lambda _, __, y: {"y": pooled(y)})
    assert whole.keys() == alone.keys() and len(whole) == 12
    assert all(np.allclose(whole[layer]["y"], alone[layer]["y"], atol=1e-4) for layer in whole)
    texts = sample(dataset, "train", 5).documents
    third = one.model.tokens.texts([texts[2]], "document")
    found = observe(replace(one, pack=third), lambda _, __, y: {"y": pooled(y)})
    assert np.allclose(found["encoder.layer.1.output.dense"]["y"][0], whole["encoder.layer.1.output.dense"]["y"][2], atol=1e-4)
    assert not any(layer._forward_hooks for layer in layers_of(one.model))


def test_without_names_it_is_the_bare_backbone(make: MakeSystem, dataset: Dataset) -> None:
    one = first_pass(make, dataset)
    last = "encoder.layer.1.output.dense"
    seen = [observe(one, lambda _, x, __: {"x": pooled(x)}, names=names)[last]["x"] for names in (None, "retrieve", ())]
    assert np.array_equal(seen[0], seen[1]) and not np.allclose(seen[0], seen[2], atol=1e-4)


def test_weights_are_the_routers_own_and_sum_to_one(make: MakeSystem, dataset: Dataset) -> None:
    one = first_pass(make, dataset)
    found = routing_of(one)
    texts = sample(dataset, "train", 5).documents
    routings = one.model.routings(texts)
    place = one.model.tokens.texts(texts).place_S.numpy()
    for layer, weights in found.items():
        want = routings[layer].weight.numpy()[place]
        assert np.allclose(weights.weight_SE, want / want.sum(-1, keepdims=True), atol=1e-5)
        assert weights.token_TE is None


def test_of_tokens_the_mean_is_taken(make: MakeSystem, dataset: Dataset) -> None:
    one = first_pass(make, dataset, replace(SOFT, router_options={"level": "token", "std": 1.0}))
    for weights in routing_of(one).values():
        assert weights.token_TE is not None and weights.owner_T is not None
        assert np.allclose(weights.token_TE[weights.owner_T == 3].mean(0), weights.weight_SE[3])
        own = weights.token_TE[weights.owner_T == 3]
        assert weights.token_entropy_S[3] == pytest.approx(-(own * np.log(own)).sum(-1).mean())


@pytest.mark.parametrize(("bank", "options"), [("lora", {}), ("shared_down", {}), ("growing", {"start": 1})])
def test_factors_are_the_update(make: MakeSystem, bank: str, options: dict[str, int]) -> None:
    for layer in layers_of(make(LayerPlan(SOFT.experts, bank=bank, bank_options=options, router="soft")).embedder):
        a_RD, b_DR = factors(layer, "reranking")
        assert torch.allclose(b_DR @ a_RD, layer.bank.delta(torch.ones(1), ("reranking",)), atol=1e-5)


def test_factors_of_a_bank_of_somebodys_own_come_from_its_update(make: MakeSystem) -> None:
    class Whole(Bank):
        def down(self, x: torch.Tensor, experts: tuple[str, ...]) -> torch.Tensor:
            raise AssertionError("nothing goes through it")

        up = partial(down)

        def delta(self, weight_E: torch.Tensor, experts: tuple[str, ...]) -> torch.Tensor:
            return torch.outer(torch.arange(4.0), torch.ones(5)) * weight_E.sum() * len(experts)

    layer = layers_of(make().embedder)[0]
    layer.bank = Whole()
    a_RD, b_DR = factors(layer, "shared")
    assert a_RD.shape == (1, 5) and torch.allclose(b_DR @ a_RD, torch.outer(torch.arange(4.0), torch.ones(5)), atol=1e-5)


def test_names_of_blocks_and_modules() -> None:
    assert (block_name("encoder.layer.3.output.dense"), module_name("encoder.layer.3.output.dense")) == ("encoder.layer.3", "output.dense")


def test_looking_does_not_change_vectors(make: MakeSystem, dataset: Dataset) -> None:
    one = first_pass(make, dataset)
    before = unit_vectors(one.model.encoder, one.pack, "retrieve", 4096)[0]
    observe(one, lambda _, x, __: {"x": pooled(x)})
    assert torch.equal(unit_vectors(one.model.encoder, one.pack, "retrieve", 4096)[0], before)
