"""Kept casts give the very numbers that autocast gives, also after a weight has changed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from twofold.backbone import linear
from twofold.backbone.linear import FastLinear, speed_up


def both(bias: bool = True, frozen: bool = True) -> tuple[nn.Sequential, nn.Sequential]:
    """The same layers, plain and with kept casts."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(8, 6, bias), nn.LayerNorm(6), nn.Linear(6, 4, bias)).requires_grad_(not frozen)
    kept = copy.deepcopy(plain)
    speed_up(kept)
    return plain, kept


def run(model: nn.Module, x: Tensor, mixed: bool = True) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        out: Tensor = model(x)
    return out


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("mixed", [True, False])
def test_the_numbers_are_autocasts_own_bit_for_bit(bias: bool, mixed: bool) -> None:
    plain, kept = both(bias)
    x = torch.randn(5, 8)
    x.requires_grad_()  # without a gradient another product may be taken
    for _ in range(2):
        assert torch.equal(run(kept, x, mixed), run(plain, x, mixed))
    assert [name for name, _ in kept.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert kept.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_cast_is_made_once_and_again_after_a_change(bias: bool, ordered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if ordered and not linear.orders():
        pytest.skip("this processor has no product of its own for bf16")
    monkeypatch.setattr(linear, "orders", lambda: ordered)
    plain, kept = both(bias)
    x, first = torch.randn(5, 8), kept[0]
    assert isinstance(first, FastLinear)
    with torch.inference_mode():
        torch.testing.assert_close(run(kept, x), run(plain, x), rtol=1e-2, atol=1e-2)
        ((_, _, product),) = first.kept.made.values()
        run(kept, x)
        assert next(iter(first.kept.made.values()))[2] is product
    with torch.no_grad():
        for model in (plain, kept):
            model[0].weight.mul_(-2)
        torch.testing.assert_close(run(kept, x), run(plain, x), rtol=1e-2, atol=1e-2)
        copied = copy.deepcopy(kept)
        assert torch.equal(run(copied, x), run(kept, x))
    run(kept, x.requires_grad_())
    assert len(first.kept.made) == 1  # never a copy of each kind


def test_gradients_pass_through_what_is_frozen() -> None:
    plain, kept = both()
    gradients = []
    for model in (plain, kept):
        x = torch.randn(5, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
        run(model, x).float().square().sum().backward()
        gradients.append(x.grad)
    assert torch.equal(gradients[0], gradients[1])


def test_what_learns_is_cast_in_every_pass_and_learns() -> None:
    plain, kept = both(frozen=False)
    x = torch.randn(5, 8)
    for model in (plain, kept):
        run(model, x).float().square().sum().backward()
    assert torch.equal(kept[0].weight.grad, plain[0].weight.grad) and not kept[0].kept.made


def test_another_weight_in_its_place_is_noticed() -> None:
    plain, kept = both()
    x = torch.randn(5, 8)
    with torch.no_grad():
        run(kept, x)
        for model in (plain, kept):
            model[0].weight = nn.Parameter(torch.full((6, 8), 0.25), requires_grad=False)
        torch.testing.assert_close(run(kept, x), run(plain, x), rtol=1e-2, atol=1e-2)
        assert len(kept[0].kept.made) == 1


def test_what_a_fused_optimiser_has_trained_is_cast_anew() -> None:
    """It counts up no version."""
    _, kept = both()
    x = torch.randn(5, 8)
    with torch.no_grad():
        before = run(kept, x).clone()
    kept.requires_grad_(True)
    optimiser = torch.optim.AdamW(kept.parameters(), lr=1.0, fused=True)
    kept(x).square().sum().backward()
    optimiser.step()
    kept.requires_grad_(False)
    with torch.no_grad():
        assert not torch.allclose(run(kept, x), before, atol=0.1)
        torch.testing.assert_close(run(kept, x).float(), kept(x), rtol=5e-2, atol=5e-2)
