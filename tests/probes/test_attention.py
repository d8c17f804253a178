"""Attention whose measures are known, and the eager, padded run beside the packed one."""

from __future__ import annotations

from math import log

import pytest
import torch

from tests.probes.conftest import MakeSystem
from tests.tiny import tiny_backbone, tiny_pack
from twofold.data.sources import Dataset
from twofold.probes.attention import NONE, divergence, measures, run


def test_eager_and_padded_it_gives_what_packing_gives(make: MakeSystem, dataset: Dataset) -> None:
    report = run(make(size=0.1), dataset, split="train", queries=6)
    assert float(str(report["facts"]["largest_difference"])) < 1e-4
    assert {(row["input"], row["experts"]) for row in report["tables"]["means"]} == {
        (given, experts) for given in ("query", "document", "pair") for experts in ("retrieve", "rerank", NONE)
    }
    layers = report["tables"]["layers"]
    assert {row["layer"] for row in layers} == {0, 1}
    for row in layers:
        assert 0 < float(str(row["entropy_share"])) <= 1
        assert (row.get("query_to_document") is not None) == (row["input"] == "pair")
    assert all(float(str(row["js"])) > 0 for row in report["tables"]["divergence"] if row["layer"] == 1)


def test_experts_that_do_nothing_attend_as_the_backbone_does(make: MakeSystem, dataset: Dataset) -> None:
    report = run(make(size=0.0), dataset, split="train", queries=6)
    assert [row["js"] for row in report["tables"]["divergence"]] == [0] * len(report["tables"]["divergence"])


@pytest.mark.parametrize("family", ["bert", "qwen3", "modernbert"])
def test_every_family_gives_its_weights(family: str) -> None:
    backbone, pack = tiny_backbone(family), tiny_pack([9, 4, 7])
    before = backbone.config._attn_implementation
    hidden, weights = backbone.attentions(pack, ())
    assert torch.allclose(hidden, backbone(pack, ())[0], atol=1e-4)
    assert backbone.config._attn_implementation == before
    for weight in weights:
        assert weight.shape[0] == 3 and weight.shape[-1] == 9
        real = torch.arange(9)[None] < torch.tensor(pack.lengths)[:, None]
        assert torch.allclose(weight.sum(-1).mean(1)[real], torch.ones(20), atol=1e-4)
        assert float(weight[1, :, :7, 7:].abs().max()) == 0


def test_even_attention_and_attention_to_oneself() -> None:
    pack = tiny_pack([6, 4], types=True)
    even = torch.zeros(2, 3, 6, 6)
    even[0], even[1, :, :, :4] = 1 / 6, 1 / 4
    found = measures(even, pack, causal=False)
    assert found["entropy"].tolist() == pytest.approx([log(6), log(4)])
    assert found["entropy_share"].tolist() == pytest.approx([1, 1])
    assert found["distance"].tolist() == pytest.approx([35 / 18, 1.25])
    assert found["first"].tolist() == pytest.approx([1 / 6, 1 / 4])
    assert found["query_to_document"].tolist() == pytest.approx([0.5, 0.5])
    assert found["document_share"].tolist() == pytest.approx([0.5, 0.5])
    own = torch.eye(6).expand(2, 3, 6, 6)
    alone = measures(own, pack, causal=False)
    assert alone["entropy"].tolist() == alone["distance"].tolist() == alone["query_to_document"].tolist() == [0, 0]


def test_a_causal_row_is_measured_by_what_it_may_see() -> None:
    weight = torch.tril(torch.ones(5, 5)) / torch.arange(1, 6)[:, None]
    found = measures(weight.expand(1, 2, 5, 5), tiny_pack([5]), causal=True)
    assert found["entropy_share"].tolist() == pytest.approx([1])


def test_divergence_is_between_none_and_ln_two() -> None:
    pack = tiny_pack([3, 2])
    own = torch.eye(3).expand(2, 1, 3, 3)
    assert divergence(own, own, pack).tolist() == [0, 0]
    assert divergence(own, own.roll(1, -1), pack).tolist() == pytest.approx([log(2), log(2)])
