"""Experts in a whole model: which layers get them, what adding does, and equality with PEFT."""

from __future__ import annotations

import threading
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn

from tests.tiny import add_experts, tiny_backbone, tiny_model, tiny_pack
from twofold.backbone.backbone import Backbone
from twofold.core.inject import Expert, LayerPlan, block_of, mixtures, ranks_of, target_layers

TWO = LayerPlan(
    (Expert("left", 2), Expert("right", 3), Expert("both", 2)), sees={"retrieve": ("left", "both"), "rerank": ("right", "both")}
)
LENGTHS = (9, 4, 4, 1)


def with_router(router: str, **options: Any) -> LayerPlan:
    return LayerPlan(TWO.experts, sees=TWO.sees, router=router, **options)


@pytest.mark.parametrize(
    ("layer", "block"),
    [
        ("encoder.layer.3.output.dense", "encoder.layer.3"),
        ("layers.11.mlp.up_proj", "layers.11"),
        ("layers.1.experts.7.w1", "layers.1"),
        ("3.linear", "3"),
        ("pooler.dense", None),
        ("layers.11", None),
    ],
)
def test_a_block_is_what_the_first_number_counts(layer: str, block: str | None) -> None:
    assert block_of(layer) == block


def test_targets_are_the_linear_layers_inside_blocks() -> None:
    model = tiny_model("bert")
    everything = target_layers(model, ".*")
    assert len(everything) == 12 and all(isinstance(module, nn.Linear) for module in everything.values())
    assert list(target_layers(model, r"query|value")) == [
        f"encoder.layer.{i}.attention.self.{x}" for i in (0, 1) for x in ("query", "value")
    ]
    with pytest.raises(ValueError, match=r"'querry'.*encoder.layer.0"):
        target_layers(model, "querry")


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Big"},
        {"name": ""},
        {"name": "a.b"},
        {"name": "x" * 65},
        {"rank": 0},
        {"rank": -1},
        {"ranks": {"query": -1}},
        {"depths": (2, -1)},
    ],
)
def test_an_expert_with_a_wrong_name_or_rank_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a name is up to 64 .* a rank 1 or more"):
        Expert(**{"name": "fine", "rank": 4, **wrong})


def test_an_experts_scale_is_alpha_over_rank_wherever_it_is() -> None:
    expert = Expert("e", 4, ranks={"query": 8, "layer.1": 0})
    assert (expert.scale, Expert("e", 4, alpha=4).scale, Expert("e", 8, alpha=4).scale) == (2.0, 1.0, 0.5)
    names = ("layer.1.query", "layer.1.key", "layer.0.key")
    assert [expert.rank_in(name) for name in names] == [8, 0, 4]


def test_ranks_may_differ_by_layer_and_be_none() -> None:
    plan = LayerPlan((Expert("left", 2, ranks={"layer.1": 0}), Expert("right", 3, ranks={"query": 1})))
    backbone = tiny_backbone(plan=plan)
    ranks = {layer.layer: dict(layer.bank.ranks) for layer in mixtures(backbone.model)}
    assert ranks["encoder.layer.0.attention.self.query"] == {"left": 2, "right": 1}
    assert ranks["encoder.layer.1.output.dense"] == {"right": 3}  # what is not there is not routed to
    hidden_TD, _ = backbone(tiny_pack(LENGTHS), "retrieve")
    hidden_TD.sum().backward()
    assert hidden_TD.isfinite().all()


@pytest.mark.parametrize(("scope", "routers"), [("linear", 12), ("block", 2), ("model", 1)])
def test_the_scope_says_how_many_routers_there_are(scope: str, routers: int) -> None:
    backbone = tiny_backbone(plan=with_router("soft", scope=scope))
    assert len({id(layer.router) for layer in mixtures(backbone.model)}) == routers
    _, routings = backbone(tiny_pack(LENGTHS), "retrieve")
    assert len(routings) == 12 and len({id(routing.weight) for routing in routings.values()}) == routers
    assert all(routing.layer == name and routing.weight.shape == (4, 2) for name, routing in routings.items())


@pytest.mark.parametrize("family", ["bert", "distilbert", "nomic_bert", "eurobert", "llama", "modernbert", "gemma3"])
def test_block_scope_meets_the_first_layer_that_runs_in_every_family(family: str) -> None:
    backbone = tiny_backbone(family, with_router("soft", scope="block"))
    hidden_TD, _ = backbone(tiny_pack(LENGTHS), "retrieve")
    assert hidden_TD.isfinite().all()


def test_a_plan_without_experts_leaves_the_model_as_it_is() -> None:
    model = tiny_model()
    add_experts(model, LayerPlan())
    assert list(mixtures(model)) == []


def test_experts_are_injected_once_and_into_a_known_scope() -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match="scope 'blocks'"):
        add_experts(model, LayerPlan(TWO.experts, scope="blocks"))
    add_experts(model, TWO)
    with pytest.raises(ValueError, match="already"):
        add_experts(model, TWO)


def test_new_experts_change_nothing_until_they_are_trained() -> None:
    bare, backbone = tiny_backbone(), tiny_backbone()
    add_experts(backbone.model, TWO, noise=0)
    pack = tiny_pack(LENGTHS)
    torch.testing.assert_close(backbone(pack, "retrieve")[0], bare(pack, "retrieve")[0], rtol=0, atol=1e-6)


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(KeyError, match="unknown task 'retreive'"):
        tiny_backbone(plan=TWO)(tiny_pack(LENGTHS), "retreive")


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT asks by the old name
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_one_expert_equals_pefts_lora_forward_and_backward(family: str) -> None:
    plan = LayerPlan((Expert("only", 4, alpha=12),), sees={})
    ours = Backbone(tiny_model(family), attention="padded")
    add_experts(ours.model, plan)
    targets = sorted({name.rpartition(".")[2] for name in target_layers(tiny_model(family), ".*")})
    config = peft.LoraConfig(r=4, lora_alpha=12, target_modules=targets, lora_dropout=0.0, bias="none")
    theirs: Any = peft.get_peft_model(tiny_model(family), config)
    layers = {layer.layer: layer for layer in mixtures(ours.model)}
    lora = {name.removeprefix("base_model.model."): module for name, module in theirs.named_modules() if hasattr(module, "lora_A")}
    lora = {name: module for name, module in lora.items() if block_of(name)}
    assert lora.keys() == layers.keys()
    for name, module in lora.items():
        module.lora_A["default"].weight.data.copy_(layers[name].bank.a["only"])
        module.lora_B["default"].weight.data.copy_(layers[name].bank.b["only"])
        assert module.scaling["default"] == 3
    pack = tiny_pack((7, 7, 7))
    y, _ = ours(pack, "retrieve")
    want = theirs(input_ids=pack.input_ids_T.view(3, 7)).last_hidden_state.flatten(0, 1)
    torch.testing.assert_close(y, want, rtol=0, atol=1e-6 * float(want.detach().abs().max()))
    target = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    (y - target).square().mean().backward()
    (want - target).square().mean().backward()
    for name, module in lora.items():
        for ours_p, theirs_p in ((layers[name].bank.a, module.lora_A), (layers[name].bank.b, module.lora_B)):
            mine, other = ours_p["only"].grad, theirs_p["default"].weight.grad
            assert mine is not None and other is not None and other.abs().max() > 0
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-6 * max(1.0, float(other.abs().max())))


def test_tasks_may_be_mixed_in_one_pass() -> None:
    for router in ("by_task", "task_gate", "soft", "topk"):
        backbone, pack = tiny_backbone(plan=with_router(router)), tiny_pack((9, 4, 6))
        with torch.no_grad():
            mixed = backbone.pool(backbone(pack, ["rerank", "retrieve", "rerank"])[0], pack)
            alone = {task: backbone.pool(backbone(pack, task)[0], pack) for task in ("retrieve", "rerank")}
        want = torch.stack([alone["rerank"][0], alone["retrieve"][1], alone["rerank"][2]])
        torch.testing.assert_close(mixed, want, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="2 tasks for 3 texts"):
        backbone(pack, ["rerank", "retrieve"])


def test_two_threads_with_different_tasks_do_not_meet() -> None:
    backbone, pack = tiny_backbone(plan=with_router("by_task")), tiny_pack(LENGTHS)
    found: dict[str, list[Tensor]] = {"retrieve": [], "rerank": []}
    with torch.no_grad():
        want = {task: backbone(pack, task)[0] for task in found}
    barrier = threading.Barrier(2)

    def work(task: str) -> None:
        with torch.no_grad():
            for _ in range(10):
                barrier.wait()
                found[task].append(backbone(pack, task)[0])

    threads = [threading.Thread(target=work, args=(task,)) for task in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not torch.equal(want["retrieve"], want["rerank"])
    for task, results in found.items():
        assert len(results) == 10 and all(torch.allclose(result, want[task], rtol=1e-6, atol=1e-6) for result in results)


def test_a_tasks_sides_are_in_the_roster() -> None:
    plan = LayerPlan((Expert("a", 1), Expert("b", 1)), {"retrieve/query": ("a",), "other/query": ("b",)})
    assert plan.roster(("retrieve",)).sees == {"retrieve": ("a", "b"), "retrieve/query": ("a",)}


@pytest.mark.parametrize(
    ("depths", "blocks", "want"),
    [((2, 4), 4, [2, 2, 4, 4]), ((1, 2, 3), 2, [1, 2]), ((1, 2, 3, 4), 6, [1, 1, 2, 3, 3, 4]), ((), 3, [5, 5, 5]), ((0, 3), 2, [0, 3])],
)
def test_ranks_may_differ_by_depth_and_patterns_come_first(depths: tuple[int, ...], blocks: int, want: list[int]) -> None:
    model = tiny_model(num_hidden_layers=blocks)
    expert = Expert("e", 5, ranks={"query": 7}, depths=depths)
    found = ranks_of(model, LayerPlan((expert,)), [f"encoder.layer.{i}.{part}" for i in range(blocks) for part in ("query", "key")])
    assert [ranks["e"] for name, ranks in found.items() if name.endswith("key")] == want
    assert {ranks["e"] for name, ranks in found.items() if name.endswith("query")} == {7}


def test_depth_counts_blocks_without_targets_too() -> None:
    model = tiny_model(num_hidden_layers=4)
    add_experts(model, LayerPlan((Expert("e", 5, depths=(1, 2, 3, 4)),), targets=r"layer\.[23]\."))
    assert {layer.bank.ranks["e"] for layer in mixtures(model)} == {3, 4}


@pytest.mark.parametrize("scope", ["linear", "block"])
def test_a_router_weighs_no_expert_that_is_not_there(scope: str) -> None:
    """Weights sum to the number of experts that are there, and a layer without any stays the linear that it was."""
    here = (Expert("left", 2, depths=(2, 0, 0)), Expert("right", 2, depths=(2, 2, 0)), Expert("both", 2, depths=(2, 2, 0)))
    model = tiny_model(num_hidden_layers=3)
    add_experts(model, LayerPlan(here, sees=TWO.sees, router="soft", scope=scope))
    backbone = Backbone(model)
    assert len(list(mixtures(model))) == 12
    _, routings = backbone(tiny_pack(LENGTHS), "retrieve")
    for name, routing in routings.items():
        assert routing.experts == (("left", "both") if ".0." in name else ("both",))
        torch.testing.assert_close(routing.weight.sum(-1), torch.full((4,), float(len(routing.experts))))
    rosters = {layer.layer.split(".")[2]: layer.roster for layer in mixtures(model)}
    assert rosters["1"].experts == ("right", "both") and rosters["1"].sees == {"retrieve": ("both",), "rerank": ("right", "both")}


def test_an_expert_that_does_not_exist_is_still_named() -> None:
    with pytest.raises(ValueError, match="names \\['lefft'\\]"):
        add_experts(tiny_model(), LayerPlan((Expert("left", 2, depths=(2, 0)),), sees={"retrieve": ("lefft",)}))
