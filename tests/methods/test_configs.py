"""The committed configs of joint training: one setting for all, a budget of 24 ranks, and the controls that need no file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tiny import add_experts, tiny_backbone, tiny_model, tiny_pack
from twofold import config as configs
from twofold.core.inject import LayerPlan, mixtures, ranks_of, target_layers
from twofold.methods import Member
from twofold.train.trial import method_of

FOLDER = Path(__file__).parents[2] / "configs" / "methods"
MOLA = ("mola", "mola_inverted_triangle", "mola_triangle", "mola_hourglass")
RULES = ("pcgrad", "famo", "uncertainty", "align_lora")
CONTROLS = ("shared_task_sum", "uniform", "frozen_random", "permuted")
NAMES = (*MOLA, "smora", "dr_lora", *CONTROLS, *RULES, "hydralora", "loramoe", "mtl_lora", "moelora", "ld_mole")
TASKS = ("retrieve", "rerank")


def member_of(name: str) -> Member:
    (member,) = method_of(configs.read(str(FOLDER / f"{name}.toml"))).members
    return member


@pytest.mark.parametrize("name", NAMES)
def test_everything_but_the_method_is_the_same(name: str) -> None:
    config, other = (configs.read(str(FOLDER / f"{each}.toml")) for each in (name, NAMES[0]))
    assert config.name == f"methods-{name}"
    assert config.model_dump(exclude={"name", "method"}) == other.model_dump(exclude={"name", "method"})


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("hydralora", "mtl_lora", "dr_lora")])
def test_the_ranks_of_a_layer_are_24_on_average(name: str) -> None:
    """hydralora and mtl_lora match in parameters (tested there), dr_lora grows to it (tested there)."""
    model = tiny_model(num_hidden_layers=6)
    ranks = ranks_of(model, member_of(name).plan, target_layers(model, ".*"))
    assert sum(sum(each.values()) for each in ranks.values()) / len(ranks) == 24


def ran(plan: LayerPlan) -> dict[str, torch.Tensor]:
    """Hidden states by task, with B's that are the same for an expert of the same name."""
    backbone = tiny_backbone(plan=plan)
    with torch.no_grad():
        return {task: backbone(tiny_pack((5, 3)), task)[0] for task in TASKS}


def test_shared_and_task_experts_are_summed() -> None:
    """Of every layer's output: what the shared one adds and what the task's own adds."""
    plan = member_of("shared_task_sum").plan
    assert plan.roster(TASKS).sees == {"retrieve": ("embedding", "shared"), "rerank": ("reranking", "shared")}
    model = tiny_model()
    add_experts(model, plan)
    layer, x = next(mixtures(model)), torch.randn(4, 32)
    for task, own in (("retrieve", "embedding"), ("rerank", "reranking")):
        weight_E = layer.router.constant(task, layer.roster.visible((task,)))
        assert weight_E is not None
        delta = layer.bank.delta(weight_E, layer.roster.visible((task,)))
        want = sum(2.0 * x @ layer.bank.a[name].t() @ layer.bank.b[name].t() for name in (own, "shared"))  # type: ignore[index,union-attr]
        torch.testing.assert_close(x @ delta.t(), want, rtol=1e-4, atol=1e-5)


def test_uniform_is_one_lora_of_the_experts_side_by_side_for_both_tasks() -> None:
    plan = member_of("uniform").plan
    found = ran(plan)
    assert torch.equal(found["retrieve"], found["rerank"])
    model = tiny_model()
    add_experts(model, plan)
    layer = next(mixtures(model))
    names = layer.roster.experts
    a, b = torch.cat([layer.bank.a[n] for n in names]), torch.cat([layer.bank.b[n] for n in names], 1)  # type: ignore[index,union-attr]
    torch.testing.assert_close(layer.bank.delta(torch.ones(3), names), 2 * b @ a)
    assert torch.equal(layer.router.constant("retrieve", names), torch.ones(3))  # type: ignore[arg-type]


def test_frozen_random_looks_at_the_input_and_trains_no_router() -> None:
    member = member_of("frozen_random")
    backbone = tiny_backbone(plan=member.plan)
    _, routings = backbone(tiny_pack((5, 3)), "retrieve")
    assert all((routing.weight[0] - routing.weight[1]).abs().max() > 0 for routing in routings.values())
    assert all(set(layer.router.never_trained) == set(layer.router.parameters()) for layer in mixtures(backbone.model))  # type: ignore[arg-type]
