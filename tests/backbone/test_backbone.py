"""The backbone: packed equals padded over the families, the proof at load, and pooling against its plain form."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiny import FAMILIES, PADDED_FAMILIES, add_experts, bert_tokenizer, tiny_backbone, tiny_model, tiny_pack
from tests.tiny_trial import LENGTHS as TRIAL_LENGTHS
from tests.tiny_trial import stirred, write_backbone
from twofold.backbone import packed
from twofold.backbone.backbone import Backbone
from twofold.backbone.packed import make_pack
from twofold.backbone.tokens import TextTokens
from twofold.core.inject import Expert, LayerPlan
from twofold.model.build import build_model
from twofold.model.spec import ModelSpec

LENGTHS = (3, 40, 40, 9, 1, 60, 40)
"""Mixed, some equal, together longer than the models' 64 positions, and longer than any window."""
PLAN = LayerPlan((Expert("left", 2), Expert("right", 3)), router="soft")


def both(family: str, plan: LayerPlan | None = None) -> tuple[Backbone, Backbone]:
    """The same model twice: packed and padded."""
    made = Backbone(tiny_model(family), attention="packed"), Backbone(tiny_model(family), attention="padded")
    for backbone in made:
        if plan is not None:
            add_experts(backbone.model, plan)
    return made


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_equals_padded(family: str) -> None:
    stream, rows = both(family)
    assert stream.packed and not rows.packed
    pack = tiny_pack(LENGTHS, types=True)
    with torch.no_grad():
        got, want = stream(pack, "retrieve")[0], rows(pack, "retrieve")[0]
    assert got.shape == (pack.tokens, stream.width)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_equals_padded_while_training(family: str) -> None:
    gradients: list[dict[str, Tensor]] = []
    pack = tiny_pack(LENGTHS, types=True)
    for backbone in both(family, PLAN):
        backbone.train()
        backbone.model.requires_grad_(True)
        hidden_TD, routings = backbone(pack, "retrieve")
        loss = backbone.pool(hidden_TD, pack).cumsum(0).square().mean()
        (loss + torch.stack([routing.weight.square().mean() for routing in routings.values()]).mean()).backward()
        gradients.append({name: parameter.grad for name, parameter in backbone.named_parameters() if parameter.grad is not None})
    stream, rows = gradients
    assert stream.keys() == rows.keys() and any("router" in name for name in stream) and any("embed" in name for name in stream)
    for name, gradient in rows.items():
        torch.testing.assert_close(stream[name], gradient, rtol=1e-3, atol=1e-4 * max(1.0, float(gradient.abs().max())), msg=name)


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert", "llama", "gemma2_softcap"])
def test_a_vector_does_not_depend_on_the_batch(family: str) -> None:
    backbone = tiny_backbone(family, PLAN)
    with torch.no_grad():
        pack = tiny_pack(LENGTHS)
        together = backbone.pool(backbone(pack, "retrieve")[0], pack)
        for i, ids_T in zip(pack.order, pack.input_ids_T.split(list(pack.lengths)), strict=True):
            zeros = torch.zeros_like(ids_T)
            alone = packed.Pack(ids_T, zeros, zeros, (len(ids_T),), (0,), 0)
            torch.testing.assert_close(backbone.pool(backbone(alone, "retrieve")[0], alone)[0], together[i], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", PADDED_FAMILIES)
def test_families_that_take_no_attention_function_run_padded_and_say_so(family: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        backbone = tiny_backbone(family, LayerPlan(PLAN.experts))
    assert not backbone.packed and "does not take an attention function" in backbone.why_padded
    assert "runs padded" in caplog.text
    pack = tiny_pack((5, 3, 3))
    assert backbone(pack, "retrieve")[0].isfinite().all()
    with pytest.raises(ValueError, match=r"not exact for .*does not take an attention function"):
        Backbone(tiny_model(family), attention="packed")


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_wrong_attention_function_is_caught_by_the_proof(
    family: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def leaky(*args: Any, cu_seq_lens_q: Tensor, max_length_q: int, **options: Any) -> Any:
        whole = torch.tensor([0, int(cu_seq_lens_q[-1])], dtype=torch.int32)
        return real(*args, cu_seq_lens_q=whole, max_length_q=int(whole[-1]), **options)

    def broken(*args: Any, **options: Any) -> Any:
        raise AttributeError("no such thing\nand more")

    real = packed.attend
    for wrong, why in ((leaky, "packed differs from padded by"), (broken, "packed attention failed: no such thing")):
        monkeypatch.setattr(packed, "attend", wrong)
        backbone = Backbone(tiny_model(family))
        assert not backbone.packed and why in backbone.why_padded and why in caplog.text
        pack = tiny_pack(LENGTHS)
        torch.testing.assert_close(backbone(pack, "t")[0], Backbone(tiny_model(family), attention="padded")(pack, "t")[0])
    monkeypatch.undo()
    packed.register()
    assert Backbone(tiny_model(family)).packed


@pytest.mark.parametrize("precision", ["fp32", "bf16-weights"])
@pytest.mark.parametrize("family", ["roberta", "mistral_window", "gemma2_softcap"])
def test_the_proof_sees_positions_windows_and_soft_caps(family: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(*args: Any, sliding_window: Any = None, softcap: Any = None, **options: Any) -> Any:
        return real(*args, **options)

    real = packed.attend
    monkeypatch.setattr(packed, "attend", forgetful)
    monkeypatch.setattr("twofold.backbone.backbone.OFFSET_FAMILIES", set())
    model = tiny_model(family) if precision == "fp32" else tiny_model(family).bfloat16()
    backbone = Backbone(model, precision=precision)
    assert not backbone.packed and "differs" in backbone.why_padded
    monkeypatch.undo()
    packed.register()


def test_the_proof_leaves_the_model_and_the_random_numbers_as_they_were() -> None:
    model = tiny_model().train()
    state, before = torch.get_rng_state(), {name: parameter.clone() for name, parameter in model.named_parameters()}
    assert Backbone(model).packed and model.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_two_models_that_were_given_one_config_do_not_share_their_attention() -> None:
    first, second = tiny_model(), tiny_model(seed=1)
    second.config = first.config
    for module in second.modules():
        if hasattr(module, "config"):
            module.config = first.config
    stream, rows = Backbone(first, attention="packed"), Backbone(second, attention="padded")
    pack = tiny_pack(LENGTHS)
    want = Backbone(tiny_model(seed=1), attention="padded")(pack, "t")[0]
    torch.testing.assert_close(rows(pack, "t")[0], want)
    assert stream.config._attn_implementation == packed.NAME != rows.config._attn_implementation


@pytest.mark.parametrize("attention", ["packed", "padded"])
@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_pooling_equals_its_plain_form_in_the_callers_order(pooling: str, attention: str) -> None:
    backbone = Backbone(tiny_model(), pooling=pooling, attention=attention)
    pack = tiny_pack((3, 9, 4, 9), types=True)
    with torch.no_grad():
        hidden_TD, _ = backbone(pack, "t")
        whole, query, document = (backbone.pool(hidden_TD, pack, part) for part in (None, 1, 2))
    states, parts = hidden_TD.split(list(pack.lengths)), pack.part_T.split(list(pack.lengths))
    for place, (x, part) in zip(pack.order, zip(states, parts, strict=True), strict=True):
        want = {"mean": x.mean(0), "first": x[0], "last": x[-1]}[pooling]
        torch.testing.assert_close(whole[place], want)
        torch.testing.assert_close(query[place], x[part == 1].mean(0))
        torch.testing.assert_close(document[place], x[part == 2].mean(0))
    assert whole.shape == (4, 32) and whole.dtype == torch.float32


def test_a_part_that_is_empty_pools_to_zero() -> None:
    backbone, pack = tiny_backbone(), tiny_pack((3, 2))
    assert (backbone.pool(backbone(pack, "t")[0], pack, 2) == 0).all()


def test_pooling_is_chosen_by_what_a_token_sees() -> None:
    assert {family: tiny_backbone(family).pooling for family in ("bert", "eurobert", "llama", "gemma3", "gemma3_bidirectional")} == {
        "bert": "mean",
        "eurobert": "mean",
        "llama": "last",
        "gemma3": "last",
        "gemma3_bidirectional": "mean",
    }


def test_tasks_follow_their_texts_into_the_stream() -> None:
    backbone = tiny_backbone(
        plan=LayerPlan((Expert("left", 2), Expert("right", 2)), sees={"a": ("left",), "b": ("right",)}, router="by_task"), tasks=("a", "b")
    )
    pack = tiny_pack((2, 7, 4))
    _, routings = backbone(pack, ["a", "b", "a"])
    record = next(iter(routings.values()))
    assert record.tasks == ("b", "a", "a") and record.weight.tolist() == [[0, 1], [1, 0], [1, 0]]
    with pytest.raises(ValueError, match="4 tasks for 3 texts"):
        backbone(pack, ["a"] * 4)


@pytest.mark.parametrize("attention", ["packed", "padded"])
def test_a_pass_without_a_task_is_the_bare_backbone(attention: str, tmp_path: Path) -> None:
    write_backbone(tmp_path)
    plan = LayerPlan((Expert("embedding", 2),), router="soft")
    built = [
        build_model(ModelSpec(str(tmp_path), {"retrieve": {}}, plan=own, attention=attention, **TRIAL_LENGTHS))
        for own in (LayerPlan(), plan)
    ]
    bare, model = built[0], stirred(built[1]).eval()
    pack = model.tokens.texts(["the lazy dog", "a", "fox"])
    with torch.no_grad():
        want, own, other = bare.backbone(pack, "retrieve")[0], *(model.backbone(pack, tasks) for tasks in ((), "retrieve"))
    assert torch.equal(own[0], want)
    assert own[1] == {}
    assert not torch.allclose(other[0], want)


def test_mixed_precision_stays_near_and_routes_in_fp32() -> None:
    plain, mixed = tiny_backbone(plan=PLAN), tiny_backbone(plan=PLAN, precision="bf16")
    pack = tiny_pack(LENGTHS)
    with torch.no_grad():
        (want, _), (got, routings) = plain(pack, "retrieve"), mixed(pack, "retrieve")
    assert (got.float() - want).abs().mean() < 0.05 * want.abs().mean()
    assert all(routing.weight.dtype == torch.float32 for routing in routings.values())


@pytest.mark.parametrize("wrong", [{"pooling": "max"}, {"attention": "flash"}, {"precision": "int8"}])
def test_wrong_options_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong.values()))):
        Backbone(tiny_model(), **wrong)


@pytest.mark.parametrize("attention", ["packed", "padded"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "bert"])
def test_some_tasks_attend_both_ways(family: str, attention: str) -> None:
    """Equal to a plain eager run of each text alone: with nothing masked for `retrieve`, as the model came for `rerank`."""
    backbone = Backbone(tiny_model(family), attention=attention, both_ways=("retrieve",))
    hub_model: Any = tiny_model(family)
    hub_model.set_attn_implementation("eager")
    pack = tiny_pack((40, 9, 9, 1, 22))
    for task in ("retrieve", "rerank"):
        want = []
        for ids_L in pack.input_ids_T.split(list(pack.lengths)):
            open_11LL = torch.zeros(1, 1, len(ids_L), len(ids_L))
            inputs = {"attention_mask": open_11LL} if task == "retrieve" else {}
            with torch.no_grad():
                want.append(hub_model(input_ids=ids_L[None], **inputs).last_hidden_state[0])
        with torch.no_grad():
            got_TD, _ = backbone(pack, task)
        torch.testing.assert_close(got_TD, torch.cat(want), rtol=0, atol=1e-5)
    with torch.no_grad():
        off = (backbone(pack, "retrieve")[0] - backbone(pack, "rerank")[0]).abs().max()
    assert (off > 0.1) == (family != "bert")


def test_both_ways_trains_alike_packed_and_padded() -> None:
    gradients: list[dict[str, Tensor]] = []
    pack = tiny_pack(LENGTHS)
    for attention in ("packed", "padded"):
        backbone = Backbone(tiny_model("llama"), attention=attention, both_ways=("retrieve",), pooling="text").train()
        backbone.gradient_checkpointing(attention == "packed")
        for task in ("retrieve", "rerank"):
            backbone.pool(backbone(pack, task)[0], pack).cumsum(0).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in backbone.named_parameters() if parameter.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and gradients[0]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-5)


def test_one_batch_looks_one_way_and_a_window_does_not_open() -> None:
    backbone = Backbone(tiny_model("llama"), both_ways=("retrieve",))
    with pytest.raises(ValueError, match=r"one batch of \['rerank', 'retrieve'\]"):
        backbone(tiny_pack((3, 4)), ("retrieve", "rerank"))
    with pytest.raises(ValueError, match="sliding window"):
        Backbone(tiny_model("mistral_window"), both_ways=("retrieve",))


def test_a_texts_own_tokens_alone_are_pooled() -> None:
    """Neither template nor prompt; all there is where a text is empty."""
    tokens = TextTokens(bert_tokenizer(), max_length=16, pair_length=32, query_length=8, prompts={"query": "what is: "})
    backbone = Backbone(tiny_model("bert"), pooling="text")
    pack = tokens.texts(["fox", "the lazy dog runs", ""], "query")
    with torch.no_grad():
        hidden_TD, _ = backbone(pack, "retrieve")
    rows = dict(zip(pack.order, hidden_TD.split(list(pack.lengths)), strict=True))
    own = {0: slice(4, -1), 1: slice(4, -1), 2: slice(None)}  # [CLS] what is : … [SEP]
    want = torch.stack([rows[i][own[i]].mean(0) for i in range(3)])
    torch.testing.assert_close(backbone.pool(hidden_TD, pack), want)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_proof_can_be_repeated(precision: str) -> None:
    """As on a GPU: in fp32, and again in half precision, which has a kernel of its own there. The second look compares with padded, too."""
    backbone, pack = Backbone(tiny_model("bert").eval(), precision=precision), tiny_pack(LENGTHS)
    with torch.no_grad():
        hidden_TD = backbone(pack, "retrieve")[0]
        assert backbone.packed and backbone._prove_packed() == ""
        assert torch.equal(backbone(pack, "retrieve")[0], hidden_TD)


@pytest.mark.parametrize("router", ["soft", "topk", "task_gate"])
def test_a_text_does_not_depend_on_its_company_where_a_table_of_positions_goes_through_the_experts(router: str) -> None:
    """DeBERTa's."""
    model = tiny_model("deberta_v2")
    add_experts(model, LayerPlan((Expert("a", 2), Expert("b", 2)), router=router))
    backbone = Backbone(model).eval()
    with torch.no_grad():
        together = backbone(tiny_pack((5, 3)), "retrieve")[0]
        pack = tiny_pack((5, 3))
        alone = backbone(make_pack([(pack.input_ids_T[:5].tolist(), [0] * 5, [1] * 5)]), "retrieve")[0]
    torch.testing.assert_close(together[:5], alone)
