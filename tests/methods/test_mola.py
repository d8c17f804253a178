"""MoLA: who is where is what the list says, and the balance does not punish a specialist."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.methods.joint import companion_of, joint, train
from tests.reference import methods as slow
from tests.tiny import add_experts, tiny_backbone, tiny_model, tiny_pack
from twofold.core.inject import mixtures
from twofold.core.routing import Routing
from twofold.methods.mola import Balance, build
from twofold.train.stages import Phase

TASKS = ("retrieve", "rerank")


@pytest.mark.parametrize(
    ("experts", "blocks", "want"),
    [
        ((2, 4, 4, 2), 6, [2, 2, 4, 4, 4, 2]),
        ((2, 2, 4, 4), 6, [2, 2, 2, 4, 4, 4]),
        ((4, 2, 2, 4), 8, [4, 4, 2, 2, 2, 2, 4, 4]),
        ((8, 6, 4, 2), 4, [8, 6, 4, 2]),
        ((3,), 3, [3, 3, 3]),
    ],
)
def test_the_allocation_is_what_the_list_says(experts: tuple[int, ...], blocks: int, want: list[int]) -> None:
    model = tiny_model("bert", num_hidden_layers=blocks)
    add_experts(model, build(tasks=TASKS, experts=experts, rank=2).members[0].plan)
    found: dict[int, set[tuple[str, ...]]] = {}
    for layer in mixtures(model):
        assert set(layer.bank.ranks.values()) == {2}  # type: ignore[union-attr]
        assert layer.router.scored.roster.experts == layer.roster.experts  # type: ignore[union-attr]
        found.setdefault(int(layer.layer.split(".")[2]), set()).add(layer.roster.experts)
    assert found == {block: {tuple(f"e{i}" for i in range(n))} for block, n in enumerate(want)}


def test_two_experts_count_for_every_token() -> None:
    backbone = tiny_backbone(plan=build(tasks=TASKS, experts=(2, 4), rank=2).members[0].plan)
    _, routings = backbone(tiny_pack((5, 3)), "retrieve")
    assert {routing.weight.shape for routing in routings.values()} == {(1, 8, 2), (1, 8, 4)}
    assert all(((routing.weight > 0).sum(-1) == 2).all() for routing in routings.values())


def layer_of(score: list[list[float]], k: int, layer: str) -> dict[str, Routing]:
    """A pass of one layer whose tokens have these scores."""
    score_TE = torch.tensor([score], requires_grad=True)
    kept = torch.zeros_like(score_TE).scatter(-1, score_TE.topk(k, dim=-1).indices, 1.0)
    return {layer: Routing(layer, ("e0", "e1"), ("t",), kept, "token", score_TE)}


def test_the_loss_is_the_switch_balance_of_the_step_before_over_all_tasks(tmp_path: Path) -> None:
    own = companion_of(joint(tmp_path, "mola", {"experts": [2], "balance": 0.5}))
    assert isinstance(own, Balance)
    layer = next(iter(own.slots))
    own.slots = {layer: own.slots[layer]}
    retrieve, rerank = layer_of([[1.0, 0.0], [2.0, 0.5], [0.3, 0.4]], 1, layer), layer_of([[0.0, 1.0]], 1, layer)
    first = own.auxiliary("retrieve")(retrieve)
    own.auxiliary("rerank")(rerank)
    assert first.item() == pytest.approx(0.5)  # before anything is known: uniform, which is 1
    own.after_step(1, lambda: {})
    assert own.tensors["share"][own.slots[layer]].tolist() == pytest.approx([(2 / 3 + 0) / 2, (1 / 3 + 1) / 2])
    got = own.auxiliary("retrieve")(retrieve)
    probabilities = [slow.softmax(row) for row in retrieve[layer].score[0].tolist()]  # type: ignore[index]
    choices = [[0], [0], [1], [1], [1], [1]]  # what makes the shares 1/3 and 2/3
    assert got.item() == pytest.approx(0.5 * slow.switch_balance(choices, probabilities))
    got.backward()
    assert (retrieve[layer].score.grad != 0).all()  # type: ignore[union-attr]


def test_specialists_of_two_tasks_are_left_alone(tmp_path: Path) -> None:
    """A balance over the batch of one task would push a perfect specialist away from its task; this one has no gradient there."""
    own = companion_of(joint(tmp_path, "mola", {"experts": [2], "k": 1}))
    layer = next(iter(own.slots))
    own.slots = {layer: own.slots[layer]}
    passes = {"retrieve": layer_of([[3.0, -3.0]] * 4, 1, layer), "rerank": layer_of([[-3.0, 3.0]] * 2, 1, layer)}
    for task, routings in passes.items():
        own.auxiliary(task)(routings)
    own.after_step(1, lambda: {})
    for task, routings in passes.items():
        own.auxiliary(task)(routings).backward()
        assert routings[layer].score.grad.abs().max() < 1e-9  # type: ignore[union-attr]


def test_training_balances_what_the_router_alone_would_not(tmp_path: Path) -> None:
    """From a router that prefers one expert everywhere: with a strong balance the shares come nearer to each other."""

    def spread(balance: float) -> float:
        setup = joint(tmp_path / str(balance), "mola", {"experts": [3], "rank": 2, "k": 1, "balance": balance}, steps=15)
        for layer in mixtures(setup.model.backbone.model):
            layer.router.scored.bias["e0"].data.fill_(0.1)  # type: ignore[union-attr,index]
        last: list[float] = []

        def look(step: int, phase: Phase) -> None:
            share = phase.companion.tensors["share"].view(-1, 3)
            last.append(float((share - 1 / 3).abs().mean()))

        train(setup, look)
        return sum(last[-3:]) / 3

    assert spread(1.0) < 0.85 * spread(0.0)


@pytest.mark.parametrize("experts", [(), (2, 1)])
def test_a_part_with_nothing_to_choose_is_refused(experts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least k = 2"):
        build(tasks=TASKS, experts=experts)
