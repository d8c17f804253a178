"""What is traced: the same numbers as the model's own pass, at lengths that the trace has not seen, and the model as it was."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import add_experts, tiny_backbone, tiny_model, tiny_pack
from twofold.backbone.backbone import Backbone
from twofold.backbone.traced import JoinedLinear, Row, attend_row, trace
from twofold.core.inject import Expert, LayerPlan, mixtures
from twofold.core.routing import running

PLAN = LayerPlan((Expert("a", 2), Expert("b", 3), Expert("c", 2)), {"retrieve": ("a", "c"), "rerank": ("b",)}, router="soft")


def traced(backbone: Backbone, length: int, task: str = "retrieve") -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states (T, D) of one text by the trace, and by the plain pass."""
    scripted, example = trace(backbone, task)
    pack = tiny_pack([length], types=True)
    with torch.no_grad():
        got = scripted(*[each[None] for each in (pack.input_ids_T, pack.type_ids_T)[: len(example)]])[0]
        return got, backbone(pack, task)[0]


@pytest.mark.parametrize("family", ["bert", "roberta", "llama", "qwen3_window", "gemma3_bidirectional"])
def test_a_trace_gives_what_the_plain_pass_gives(family: str) -> None:
    got, want = traced(tiny_backbone(family, PLAN), 23)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_a_decoder_that_attends_both_ways_is_traced_so() -> None:
    backbone = Backbone(tiny_model("llama"), both_ways=("retrieve",))
    add_experts(backbone.model, PLAN)
    got, want = traced(backbone, 9)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(got, backbone(tiny_pack([9]), "rerank")[0], atol=1e-2)


def test_weights_of_half_precision_are_traced_in_single() -> None:
    backbone = Backbone(tiny_model("bert").bfloat16())
    add_experts(backbone.model, PLAN)
    got, want = traced(backbone, 9)
    assert got.dtype == torch.float32 and next(backbone.model.parameters()).dtype == torch.bfloat16
    torch.testing.assert_close(got, want.float(), rtol=0.1, atol=0.2)


def test_tracing_changes_nothing() -> None:
    backbone = tiny_backbone("bert", PLAN)
    state = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    modules, how = [id(module) for module in backbone.modules()], backbone.config._attn_implementation
    trace(backbone, "retrieve")
    assert [id(module) for module in backbone.modules()] == modules and backbone.config._attn_implementation == how
    assert all(torch.equal(tensor, state[name]) for name, tensor in backbone.state_dict().items())


@pytest.mark.parametrize("router", ["soft", "by_task"])
def test_a_joined_layer_is_its_mixture_in_one_product(router: str) -> None:
    backbone = tiny_backbone("bert", LayerPlan(PLAN.experts, PLAN.sees, router=router))
    layer, x = next(mixtures(backbone.model)), torch.randn(1, 6, 32)
    joined = JoinedLinear(layer, "retrieve")
    with torch.no_grad(), running(Row("retrieve")):
        want, got = layer.linear(x), joined(x)
    assert joined.weight.shape == (32, 32 if router == "by_task" else 36)
    assert not torch.allclose(got, want, atol=1e-2)
    pack_batch = Row("retrieve")
    pack_batch.segment_T, pack_batch.length_S = torch.zeros(6, dtype=torch.long), torch.tensor([6])
    with torch.no_grad(), running(pack_batch):
        torch.testing.assert_close(got, layer(x), rtol=1e-4, atol=1e-5)


def test_soft_caps_are_refused() -> None:
    x = torch.randn(1, 2, 3, 4)
    with pytest.raises(ValueError, match="capped"):
        attend_row(torch.nn.Identity(), x, x, x, None, softcap=2.0)
