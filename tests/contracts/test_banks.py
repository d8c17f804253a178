"""What every bank promises; a new file in `banks/` is tested without further ado."""

from __future__ import annotations

import pytest
import torch

from twofold import plugins
from twofold.core.routing import Bank

EXPERTS = ("a", "b", "c")
RANKS = {"a": 2, "b": 4, "c": 2}
LAYER = {"d_in": 6, "d_out": 7, "ranks": RANKS, "scales": {"a": 2.0, "b": 1.0, "c": 0.5}, "layer": "layers.0.query", "seed": 0}


@pytest.fixture(params=plugins.names("banks"))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def build(name: str, trained: bool = True) -> Bank:
    made: Bank = plugins.build_plugin("banks", name, {}, **LAYER)
    draw = torch.Generator().manual_seed(1)
    if trained:
        for parameter in made.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=draw) * 0.3)
    return made


def update(bank: Bank, x: torch.Tensor, weight: torch.Tensor, experts: tuple[str, ...] = EXPERTS) -> torch.Tensor:
    tokens = x.numel() // x.shape[-1]
    return bank.up(x.new_zeros(tokens, 7), bank.down(x, experts), weight, experts)


def test_a_fresh_bank_changes_nothing(name: str) -> None:
    assert (update(build(name, trained=False), torch.randn(1, 5, 6), torch.ones(1, 3)) == 0).all()


@pytest.mark.parametrize("shape", [(1, 3), (1, 5, 3)], ids=["task", "token"])
def test_shapes_and_gradients(name: str, shape: tuple[int, ...]) -> None:
    bank, weight = build(name), torch.rand(shape, requires_grad=True)
    y = update(bank, torch.randn(1, 5, 6), weight)
    assert y.shape == (5, 7) and y.isfinite().all()
    y.square().sum().backward()
    assert weight.grad is not None and (weight.grad != 0).any()
    assert all(parameter.grad is not None and (parameter.grad != 0).any() for parameter in bank.parameters())


def test_rows_of_a_padded_batch_may_be_weighted_apart(name: str) -> None:
    bank, x, weight = build(name), torch.randn(2, 4, 6), torch.rand(2, 1, 3)
    apart = torch.cat([update(bank, x[i : i + 1], weight[i]) for i in range(2)])
    torch.testing.assert_close(update(bank, x, weight), apart)


def test_an_expert_of_weight_zero_does_not_count(name: str) -> None:
    bank, x = build(name), torch.randn(1, 5, 6)
    torch.testing.assert_close(update(bank, x, torch.tensor([[1.0, 0.0, 0.5]])), update(bank, x, torch.tensor([[1.0, 0.5]]), ("a", "c")))


def test_experts_add_up(name: str) -> None:
    bank, x = build(name), torch.randn(1, 5, 6)
    apart = [update(bank, x, torch.ones(1, 1), (expert,)) for expert in EXPERTS]
    torch.testing.assert_close(update(bank, x, torch.ones(1, 3)), torch.stack(apart).sum(0))


def test_the_delta_is_the_same_update(name: str) -> None:
    bank, x, weight_E = build(name), torch.randn(1, 5, 6), torch.tensor([0.3, 1.0, 2.0])
    delta = bank.delta(weight_E, EXPERTS)
    assert delta.shape == (7, 6)
    torch.testing.assert_close(x[0] @ delta.t(), update(bank, x, weight_E[None]))


def test_a_start_is_the_same_again(name: str) -> None:
    first, second = build(name, trained=False), build(name, trained=False)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_autocast_keeps_the_outputs_type(name: str) -> None:
    bank, x = build(name), torch.randn(1, 5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        y = bank.up(torch.zeros(5, 7, dtype=torch.bfloat16), bank.down(x, EXPERTS), torch.rand(1, 3), EXPERTS)
    assert y.dtype == torch.bfloat16 and y.isfinite().all()


def test_eval_and_train_agree(name: str) -> None:
    bank, x, weight = build(name), torch.randn(1, 5, 6), torch.rand(1, 3)
    trained = update(bank.train(), x, weight)
    with torch.no_grad():
        assert torch.equal(update(bank.eval(), x, weight), trained)
