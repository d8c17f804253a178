"""The small contest, silenced banks, and shares of gains."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.probes.conftest import MakeSystem
from tests.probes.test_angles import copy_expert
from twofold.core.inject import Expert, LayerPlan, mixtures
from twofold.data.sources import Dataset
from twofold.model.proof import without_experts
from twofold.probes._arena import Arena, Silenced, carried, change, cut, depth_groups, without


def test_the_relevant_are_there_and_never_among_bm25s(dataset: Dataset) -> None:
    arena = Arena.of(dataset, "train", queries=5, depth=3)
    qrels = arena.dataset.qrels("train")
    assert len(qrels) == len(arena.candidates) == 5
    for query, row in arena.candidates.items():
        relevant = {document for document, grade in qrels[query].items() if grade > 0}
        assert relevant <= row.keys() and len(row) <= 3 + len(relevant)
        assert all(document in arena.dataset.corpus for document in row)
    assert Arena.of(dataset, "train", 5, 3).candidates == arena.candidates
    assert "5 queries" in arena.text


def test_a_perfect_score_is_one(dataset: Dataset, make: MakeSystem) -> None:
    arena, system = Arena.of(dataset, "train", 5, 3), make()
    relevant = {
        (arena.dataset.texts[q], arena.dataset.corpus.document(d).body)
        for q, row in arena.dataset.qrels("train").items()
        for d in row
        if row[d]
    }
    system.score = lambda pairs: np.array([float(pair in relevant) for pair in pairs], dtype=np.float32)  # type: ignore[method-assign]
    assert arena.score(system, "rerank").tolist() == [1.0] * 5
    assert 0 < arena.score(system, "retrieve").mean() <= 1


def test_experts_are_out_for_a_while_only(make: MakeSystem) -> None:
    model = make(size=0.5).embedder
    whole, state = model.encode(["bc de"]), set(model.state_dict())
    with without(model, ("embedding",)):
        one = model.encode(["bc de"])
    with without(model, ("embedding", "reranking", "shared")):
        none = model.encode(["bc de"])
    with without_experts(model):
        bare = model.encode(["bc de"])
    assert not np.allclose(one, whole, atol=1e-4) and not np.allclose(one, bare, atol=1e-4)
    assert np.allclose(none, bare, atol=1e-6)
    assert np.array_equal(model.encode(["bc de"]), whole) and set(model.state_dict()) == state


def test_experts_may_be_out_of_some_layers(make: MakeSystem) -> None:
    model = make(size=0.5).embedder
    groups = depth_groups(model)
    assert groups["all"] == groups["early"] | groups["late"] == frozenset(layer.layer for layer in mixtures(model.backbone.model))
    assert "middle" not in groups and len(groups["early"]) == len(groups["late"]) == 6  # two blocks
    with without(model, ("shared",), groups["early"]):
        silenced = {layer.layer for layer in mixtures(model.backbone.model) if isinstance(layer.bank, Silenced)}
    assert silenced == groups["early"]


def test_renormalised_weights_keep_their_sum(make: MakeSystem) -> None:
    """With one of two equal experts out, the other does the work of both."""
    system = make(LayerPlan(tuple(Expert(name, 2) for name in ("one", "two")), router="soft"), size=0.2)
    copy_expert(system, "one", "two")
    whole = system.encode_queries(["bc de", "fg hk lm"])
    with without(system.embedder, ("two",), how="renormalised"):
        assert np.allclose(system.encode_queries(["bc de", "fg hk lm"]), whole, atol=1e-5)
    with without(system.embedder, ("two",)):
        assert not np.allclose(system.encode_queries(["bc de", "fg hk lm"]), whole, atol=1e-3)


def test_what_is_left_of_weights(make: MakeSystem) -> None:
    bank = next(mixtures(make().embedder.backbone.model)).bank
    weight, names = torch.tensor([[1.0, 2, 3]]), ("a", "b", "c")
    assert Silenced(bank, ("b",)).left(weight, names).tolist() == [[1, 0, 3]]
    assert Silenced(bank, ("b",), "renormalised").left(weight, names).tolist() == [[1.5, 0, 4.5]]
    assert Silenced(bank, names, "renormalised").left(weight, names).tolist() == [[0, 0, 0]]
    with pytest.raises(ValueError, match="use one of zero, renormalised"):
        Silenced(bank, (), "gently")


def test_texts_are_cut_for_a_while(make: MakeSystem) -> None:
    system = make()
    model, text = system.embedder, "bc de fg " * 6
    whole = model.encode([text])
    counted = dict(model.truncated)
    with cut(system, 8):
        assert model.tokens.max_length == 8
        assert not np.allclose(model.encode([text]), whole, atol=1e-5)
    assert model.truncated == counted
    assert np.array_equal(model.encode([text]), whole)


def test_shares_of_a_gain() -> None:
    base, whole = np.full(20, 0.2), np.full(20, 0.6)
    assert carried(base, base + 0.1, whole, 0) == {"share": 25, "share_low": 25, "share_high": 25}
    assert carried(base, base - 0.1, whole, 0)["share"] == -25
    noisy = base + np.where(np.arange(20) % 2, 0.5, -0.5)
    assert carried(base, base, noisy, 0)["share"] is None
    assert change(base, whole, 0) == {"change": 0.4, "low": 0.4, "high": 0.4}
