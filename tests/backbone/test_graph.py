"""A compiled graph: what the plain pass gives, for every router and bank; never stale; refused where it differs or does not pay."""

from __future__ import annotations

import copy
import gc
import logging
import signal
import sys
from collections.abc import Callable

import pytest
import torch

from tests.tiny import add_experts, tiny_backbone, tiny_model, tiny_pack
from twofold import plugins
from twofold.backbone import graph
from twofold.backbone.backbone import Backbone
from twofold.backbone.graph import Graph, Snapshot, export
from twofold.core.inject import Expert, LayerPlan, mixtures
from twofold.errors import ConfigError
from twofold.model.folding import fold, unfold

EXPERTS = (Expert("a", 2), Expert("b", 2), Expert("c", 2))
SEES = {"retrieve": ("a", "c"), "rerank": ("b", "c")}
SOFT = LayerPlan(EXPERTS, SEES, router="soft")

needs_openvino = pytest.mark.skipif(not graph.available(), reason="openvino is not installed")


def plan(router: str = "soft", bank: str = "lora") -> LayerPlan:
    return LayerPlan(EXPERTS, SEES, router=router, bank=bank, scope="block" if router == "xlora" else "linear")


def assert_by_graph(backbone: Backbone, *lengths: int, task: str = "retrieve") -> None:
    """The graph takes these texts, and gives what the plain pass gives."""
    with torch.inference_mode():
        for length in lengths:
            pack = tiny_pack([length], types=True)
            assert backbone.graphs[task].takes(pack) and backbone.graphs[task].fresh
            got, want = backbone.states(pack, task), backbone(pack, task)[0]
            assert float((got - want).abs().max() / want.abs().max()) <= graph.TOLERANCE


@pytest.fixture
def backbone() -> Backbone:
    """An encoder with a graph for its retrieval."""
    pytest.importorskip("openvino")
    made = tiny_backbone("bert", SOFT).eval()
    assert export(made, "retrieve") == ""
    return made


@needs_openvino
@pytest.mark.parametrize("router", plugins.names("routers"))
def test_every_router(router: str) -> None:
    backbone = tiny_backbone("bert", plan(router)).eval()
    assert export(backbone, "retrieve") == ""
    assert_by_graph(backbone, 1, 2, 15, 16, 17, 40, 64)


@needs_openvino
@pytest.mark.parametrize("bank", [name for name in plugins.names("banks") if name != "lora"])
def test_every_bank(bank: str) -> None:
    backbone = tiny_backbone("bert", plan(bank=bank)).eval()
    assert export(backbone, "retrieve") == ""
    assert_by_graph(backbone, 5, 33)


@needs_openvino
@pytest.mark.parametrize("family", ["llama", "roberta", "mistral_window"])
def test_decoders_and_other_families(family: str) -> None:
    backbone = tiny_backbone(family, SOFT).eval()
    assert export(backbone, "rerank") == ""
    assert_by_graph(backbone, 1, 16, 41, task="rerank")


@needs_openvino
@pytest.mark.parametrize("precision", ["bf16", "bf16-weights"])
def test_half_precision(precision: str) -> None:
    model = tiny_model("bert")
    backbone = Backbone(model.bfloat16() if precision == "bf16-weights" else model, precision=precision)
    add_experts(backbone.model, SOFT)
    assert export(backbone.eval(), "retrieve") == ""
    pack = tiny_pack([20])
    with torch.inference_mode():
        got, want = backbone.states(pack, "retrieve").float(), backbone(pack, "retrieve")[0].float()
    assert torch.nn.functional.cosine_similarity(got.flatten(), want.flatten(), 0) >= graph.COSINE


def test_it_is_used_for_one_short_text_of_its_task_and_nothing_else(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(Graph, "__call__", lambda self, pack: calls.append(pack.tokens) or torch.zeros(pack.tokens, 32))
    with torch.inference_mode():
        backbone.states(tiny_pack([4]), "retrieve")
        backbone.states(tiny_pack([5]), ["retrieve"])
        assert calls == [4, 5]
        backbone.training = True
        assert backbone.states(tiny_pack([4]), "retrieve").any()
        backbone.training = False
        assert backbone.states(tiny_pack([4]), "rerank").any() and backbone.states(tiny_pack([4]), ()).any()
        assert backbone.states(tiny_pack([4, 4]), "retrieve").any() and backbone(tiny_pack([4]), "retrieve")[0].any()
        monkeypatch.setattr(graph, "TOKENS", 6)
        assert backbone.states(tiny_pack([7]), "retrieve").any()
    assert backbone.states(tiny_pack([4]), "retrieve").requires_grad, "where a gradient is asked for"
    assert calls == [4, 5]


def _step(backbone: Backbone) -> None:
    with torch.no_grad():
        next(mixtures(backbone.model)).bank.get_parameter("b.a").add_(1.0)


def _load(backbone: Backbone) -> None:
    state = backbone.state_dict()
    backbone.load_state_dict({name: tensor * 1.5 if tensor.is_floating_point() else tensor for name, tensor in state.items()}, assign=True)


def _router(backbone: Backbone) -> None:
    layer = next(mixtures(backbone.model))
    layer.router = list(mixtures(backbone.model))[-1].router if layer.linear.in_features == 48 else tiny_router()


def tiny_router() -> torch.nn.Module:
    """Another router for a layer of 32 features."""
    other = tiny_backbone("bert", LayerPlan(EXPERTS, SEES, router="uniform"))
    return next(mixtures(other.model)).router


def _type(backbone: Backbone) -> None:
    backbone.model.bfloat16()


@pytest.mark.parametrize("change", [_step, _load, _router, _type])
def test_a_change_of_the_model_is_seen(backbone: Backbone, change: Callable[[Backbone], None], caplog: pytest.LogCaptureFixture) -> None:
    assert backbone.graphs["retrieve"].fresh
    change(backbone)
    pack = tiny_pack([9])
    with torch.inference_mode(), caplog.at_level(logging.WARNING):
        assert torch.equal(backbone.states(pack, "retrieve"), backbone(pack, "retrieve")[0])
    assert not backbone.graphs and "its graph for retrieve is dropped" in caplog.text


@needs_openvino
def test_folding_training_and_moving_are_seen() -> None:
    backbone = tiny_backbone("bert", plan("by_task"))
    pack = tiny_pack([9])
    changes = (
        lambda: fold(backbone.model, "retrieve"),
        lambda: unfold(backbone.model),
        backbone.train,
        lambda: backbone.bfloat16().float(),
    )
    for change in changes:
        backbone.eval()
        assert export(backbone, "retrieve") == ""
        change()
        with torch.inference_mode():
            assert torch.equal(backbone.states(pack, "retrieve"), backbone(pack, "retrieve")[0])
        assert not backbone.graphs
    fold(backbone.model, "retrieve")
    assert export(backbone.eval(), "retrieve") == "", "a folded model's graph is that of its folded weights"
    assert_by_graph(backbone, 9)


def test_evaluating_again_keeps_it_and_a_copy_has_none(backbone: Backbone) -> None:
    backbone.eval()
    backbone.train(False)
    twin = copy.deepcopy(backbone)
    assert backbone.graphs["retrieve"].fresh and not twin.graphs


def test_a_graph_that_differs_is_refused(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("openvino")
    plain = Graph.__call__
    monkeypatch.setattr(Graph, "__call__", lambda self, pack: plain(self, pack) * (1.001 if pack.tokens == 17 else 1.0))
    backbone = tiny_backbone("bert", SOFT).train()
    why = export(backbone, "retrieve")
    assert "differs from the plain pass at 17 tokens by 1.0e-03" in why
    assert not backbone.graphs and backbone.training and why in caplog.text


@needs_openvino
@pytest.mark.parametrize(("family", "reason"), [("mpnet", "it runs padded"), ("gemma2_softcap", "its attention scores are capped")])
def test_what_cannot_be_exported_says_why(family: str, reason: str) -> None:
    backbone = tiny_backbone(family, SOFT)
    assert reason in export(backbone, "retrieve") and not backbone.graphs
    with torch.inference_mode():
        assert torch.equal(backbone.states(tiny_pack([5]), "retrieve"), backbone(tiny_pack([5]), "retrieve")[0])


@needs_openvino
def test_where_it_does_not_pay_it_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 0.9, 1.0, 0.5])
    monkeypatch.setattr(graph, "seconds", lambda call: (call(), next(times))[1])
    backbone = tiny_backbone("bert", SOFT)
    assert "1.11 times as fast" in export(backbone, "retrieve", graph.GAIN) and not backbone.graphs
    assert export(backbone, "retrieve", graph.GAIN) == "" and backbone.graphs


def test_the_least_round_counts_and_the_first_does_not() -> None:
    ticks = iter([0.0, 0.1, *(value for i in range(1, 10) for value in (100.0 * i, 100.0 * i + 20 - i))])
    assert graph.seconds(lambda: None, lambda: next(ticks)) == 11.0


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "available", lambda: False)
    with pytest.raises(ConfigError, match=r'pip install "twofold\[openvino\]"'):
        export(tiny_backbone("bert"), "retrieve")


def test_nothing_reports_to_anybody(backbone: Backbone) -> None:
    assert sys.modules["openvino_telemetry"] is None


def test_a_snapshot_costs_little_and_holds_while_nothing_changes() -> None:
    backbone = tiny_backbone("bert", SOFT).eval()
    snapshot = Snapshot(backbone.model)
    with torch.inference_mode():
        backbone(tiny_pack([5]), "retrieve")  # the banks keep their stacked matrices from now on
    assert snapshot.holds()
    backbone.model.register_buffer("further", torch.zeros(1))
    assert snapshot.holds(), "what no layer of the snapshot knew cannot change it"


@needs_openvino
def test_signals_are_answered_after_graphs_have_come_and_gone() -> None:
    """As a server that is asked to stop: OpenVINO's stack for signals must be memory still."""
    made = [tiny_backbone("bert", SOFT).eval() for _ in range(2)]
    assert [export(each, "retrieve") for each in made] == ["", ""]
    while made:  # the first goes first
        made.pop(0)
        gc.collect()
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]
