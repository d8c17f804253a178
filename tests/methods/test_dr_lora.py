"""DR-LoRA: nothing jumps when ranks grow, and the budget is met exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.methods.joint import companion_of, joint, train
from tests.reference import methods as slow
from tests.tiny import tiny_pack
from twofold.banks.growing import GrowingBank
from twofold.core.inject import mixtures
from twofold.methods.dr_lora import Grow, Growth, build, granted
from twofold.train.stages import Phase, trainable

TASKS = ("retrieve", "rerank")
OPTIONS = {"start": 1, "target": 3, "most": 5, "rounds": 3}


def ranks(model: Any) -> list[list[int]]:
    return [layer.bank.active_E.tolist() for layer in mixtures(model.backbone.model)]


@pytest.mark.parametrize("steps", [1, 2, 7, 12])
def test_every_layer_meets_its_budget_exactly_and_in_rounds(steps: int, tmp_path: Path) -> None:
    setup, seen = joint(tmp_path, "dr_lora", OPTIONS, steps=steps), []
    train(setup, lambda step, phase: seen.append(ranks(setup.model)))
    assert {sum(layer) for layer in ranks(setup.model)} == {9}
    assert all(1 <= rank <= 5 for layer in ranks(setup.model) for rank in layer)
    totals = [sum(layer[0]) for layer in seen]
    assert totals == sorted(totals)
    if steps == 12:
        assert sorted(set(totals)) == [3, 5, 7, 9] and totals[0] == 3 and totals[5] == 9
        assert len({tuple(layer) for layer in ranks(setup.model)}) > 1  # layers and experts need different ranks


def test_growth_leaves_the_function_as_it_is_at_that_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, grown = joint(tmp_path, "dr_lora", OPTIONS, steps=12), []
    real, pack = Grow.after_step, tiny_pack((6, 4))

    def watched(self: Grow, *arguments: Any) -> None:
        with torch.no_grad():
            before, had = setup.model.backbone(pack, "retrieve")[0], ranks(setup.model)
            real(self, *arguments)
            if ranks(setup.model) != had:
                grown.append(1)
                assert torch.equal(setup.model.backbone(pack, "retrieve")[0], before)

    monkeypatch.setattr(Grow, "after_step", watched)
    train(setup)
    assert len(grown) == 3
    for layer in mixtures(setup.model.backbone.model):
        assert isinstance(layer.bank, GrowingBank)
        for (name, b), active in zip(layer.bank.b.items(), layer.bank.active_E.tolist(), strict=True):
            assert (b[:, :active] != 0).any(0).all() and (b[:, active:] == 0).all(), name


def test_importance_is_the_mean_over_ranks_of_theta_times_gradient(tmp_path: Path) -> None:
    setup = joint(tmp_path, "dr_lora", {"start": 5, "target": 5, "most": 5, "decay": 0.75})
    own = companion_of(setup)
    assert isinstance(own, Grow)
    trainable(setup.model, setup.member.stages[0])
    draw = torch.Generator().manual_seed(0)
    named = {name: p for members in setup.model.groups().values() for name, p in members if p.requires_grad}
    for parameter in named.values():
        parameter.data.copy_(torch.randn(parameter.shape, generator=draw))
    kept = {task: {name: torch.randn(p.shape, generator=draw) for name, p in named.items()} for task in TASKS}
    total = own.combine(kept, {})
    assert all(torch.equal(total[name], kept["retrieve"][name] + kept["rerank"][name]) for name in named)
    for layer in mixtures(setup.model.backbone.model):
        for at, expert in enumerate(layer.roster.experts, own.slots[layer.layer].start):
            value = 0.0
            for r in range(5):
                a, b = f"{layer.layer}.bank.a.{expert}", f"{layer.layer}.bank.b.{expert}"
                value += float((named[a][r] * total[a][r]).abs().sum().detach() + (named[b][:, r] * total[b][:, r]).abs().sum().detach())
            assert own.tensors["importance"][at].item() == pytest.approx(0.25 * value / 5, rel=1e-4)


def test_frequency_is_the_mean_weight_over_tasks(tmp_path: Path) -> None:
    own: list[float] = []
    setup = joint(tmp_path, "dr_lora", {**OPTIONS, "decay": 0.0}, steps=1)

    def look(step: int, phase: Phase) -> None:
        companion = phase.companion
        assert isinstance(companion, Grow)
        own.extend(float(companion.tensors["frequency"][slot].sum()) for slot in companion.slots.values())

    train(setup, look)
    assert own == pytest.approx([3.0] * 12)  # weights of three experts sum to three


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=4), st.integers(0, 12), st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_ranks_go_one_by_one_to_whom_needs_them_most(need: list[int], more: int, penalty: float) -> None:
    n = len(need)
    active, most = [1 + i % 2 for i in range(n)], [4 + i for i in range(n)]
    due = min(sum(active) + more, sum(most))
    got = granted(torch.tensor(active), torch.tensor(most), torch.tensor(need, dtype=torch.float64), due, penalty)
    assert got.tolist() == slow.growth(active, most, need, due, penalty)
    assert got.sum() == due


def test_the_plan_of_growth_ends_at_the_target_whatever_the_rounds() -> None:
    for rounds in (1, 3, 4, 7):
        plan = Growth(2, 5, rounds, 0.2, 0.6, 0.85, 1.0)
        assert (plan.ranks(3, 0.0), plan.ranks(3, 0.19), plan.ranks(3, 0.6), plan.ranks(3, 1.0)) == (6, 6, 15, 15)
        assert len({plan.ranks(3, done / 1000) for done in range(1001)}) == rounds + 1


@pytest.mark.parametrize("wrong", [{"start": 9}, {"most": 7}, {"start": 0}, {"rounds": 0}, {"first": 0.5, "last": 0.5}])
def test_a_budget_that_cannot_be_met_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        build(tasks=TASKS, **wrong)
