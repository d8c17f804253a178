"""SMoRA: ranks as experts, and a balance that only shifts choices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.methods.joint import joint, train
from tests.reference import methods as slow
from tests.tiny import add_experts, tiny_backbone, tiny_pack
from twofold.backbone.backbone import Backbone
from twofold.core.inject import Expert, LayerPlan, mixtures
from twofold.core.layer import MixtureLinear
from twofold.core.routing import current
from twofold.methods.smora import build
from twofold.train.stages import Phase

TASKS = ("retrieve", "rerank")


def layers_of(backbone: Backbone) -> list[MixtureLinear]:
    return list(mixtures(backbone.model))


def test_with_all_ranks_active_and_an_untrained_router_it_is_a_lora_with_its_scaling() -> None:
    ours = tiny_backbone(plan=build(tasks=TASKS, rank=6, active=6, alpha=9.0).members[0].plan)
    lora = tiny_backbone(plan=LayerPlan((Expert("shared", 6, alpha=9.0),)))
    for mine, theirs in zip(layers_of(ours), layers_of(lora), strict=True):
        names = mine.roster.experts
        theirs.bank.a["shared"].data.copy_(torch.cat([mine.bank.a[name] for name in names]))  # type: ignore[index,union-attr]
        theirs.bank.b["shared"].data.copy_(torch.cat([mine.bank.b[name] for name in names], 1))  # type: ignore[index,union-attr]
        for name in names:
            mine.router.scored.row[name].data.zero_()  # type: ignore[index,union-attr]
    pack = tiny_pack((7, 4))
    with torch.no_grad():
        want, bare = lora(pack, "retrieve")[0], tiny_backbone()(pack, "retrieve")[0]
        torch.testing.assert_close(ours(pack, "retrieve")[0], want, rtol=0, atol=2e-5)
    assert (want - bare).abs().max() > 0.1


@pytest.mark.parametrize("active", [1, 2, 4])
def test_a_layer_is_the_sum_over_the_chosen_ranks_of_each_token(active: int) -> None:
    backbone = tiny_backbone(plan=build(tasks=TASKS, rank=5, active=active, alpha=6.0).members[0].plan)
    layer, inputs, outputs = layers_of(backbone)[0], [], []
    layer.router.shift_E.copy_(torch.tensor([0.3, -0.1, 0.0, 0.2, -0.4]))  # type: ignore[operator,union-attr]
    layer.register_forward_hook(lambda _, x, y: inputs.append(x[0][0].clone()))
    layer.register_forward_hook(lambda _, x, y: outputs.append(y[0].clone()))
    names = layer.roster.experts
    with torch.no_grad():
        for name in names:
            layer.router.scored.row[name].mul_(20)  # type: ignore[index,operator,union-attr]
        backbone(tiny_pack((6, 3)), "rerank")
        x_TD = inputs[0]
        a_RD, b_DR = torch.cat([layer.bank.a[n] for n in names]), torch.cat([layer.bank.b[n] for n in names], 1)  # type: ignore[index,union-attr]
        score_TR = x_TD @ torch.cat([layer.router.scored.row[n] for n in names]).t()  # type: ignore[index,union-attr]
        want = slow.ranks_as_experts(x_TD, a_RD, b_DR, score_TR, layer.router.shift_E.tolist(), active, 6.0 / active)  # type: ignore[union-attr]
        torch.testing.assert_close(outputs[0] - layer.linear(x_TD), want, rtol=1e-3, atol=1e-4)


def test_the_shift_moves_towards_the_mean_after_every_step_by_what_all_tasks_used(tmp_path: Path) -> None:
    setup = joint(tmp_path, "smora", {"rank": 6, "active": 2, "speed": 0.01}, steps=3)
    layer = next(mixtures(setup.model.backbone.model))
    shift_E = layer.router.get_buffer("shift_E")
    seen: dict[str, list[torch.Tensor]] = {}
    stage = setup.member.stages[0]
    history = [shift_E.clone()]

    def look(step: int, phase: Phase) -> None:
        used = torch.stack([torch.cat(seen.pop(task)).mean(0) for task in stage.tasks]).mean(0)
        torch.testing.assert_close(shift_E, history[-1] + 0.01 * torch.sign(used.mean() - used))
        history.append(shift_E.clone())

    def listen(module: MixtureLinear, inputs: object, y: object) -> None:
        if module.training and torch.is_grad_enabled():
            seen.setdefault(current().tasks[0], []).append((current().routings[module.layer].weight[0] > 0).float())

    layer.register_forward_hook(listen)
    train(setup, look)
    assert len(history) == 4 and (history[-1] != 0).any()
    after = shift_E.clone()
    setup.model.encode(["a red fox"])
    assert torch.equal(shift_E, after)


@pytest.mark.parametrize("wrong", [{"rank": 5, "partition": 2}, {"active": 0}, {"rank": 4, "active": 8}, {"partition": 4, "active": 6}])
def test_groups_that_do_not_fit_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="in groups of"):
        build(tasks=TASKS, **wrong)


def test_ranks_may_come_in_groups() -> None:
    plan = build(tasks=TASKS, rank=12, active=6, partition=3, alpha=12.0).members[0].plan
    assert [(expert.name, expert.rank, expert.scale) for expert in plan.experts] == [(f"rank-{i}", 3, 2.0) for i in range(4)]
    assert plan.router_options == {"k": 2}
    model = tiny_backbone().model
    add_experts(model, plan)
    assert next(mixtures(model)).roster.experts == ("rank-0", "rank-1", "rank-2", "rank-3")
