"""The LoRA bank: how it starts, and what it keeps."""

from __future__ import annotations

import pytest
import torch

from twofold.banks.lora import LoraBank, build

EXPERTS = ("a", "b")


def bank(seed: int = 0, layer: str = "layer", ranks: dict[str, int] | None = None) -> LoraBank:
    ranks = ranks or {"a": 2, "b": 3}
    return build(d_in=16, d_out=5, ranks=ranks, scales=dict.fromkeys(ranks, 2.0), layer=layer, seed=seed)


def test_it_starts_as_peft_does() -> None:
    made = bank()
    assert all((made.b[name] == 0).all() for name in EXPERTS)
    assert all(0.2 < made.a[name].abs().max() <= 0.25 for name in EXPERTS)  # 1 / √16
    assert made.a["b"].shape == (3, 16) and made.b["b"].shape == (5, 3)


def test_an_experts_start_depends_on_seed_layer_and_name_only() -> None:
    alone = bank(ranks={"b": 3})
    torch.manual_seed(5)
    assert torch.equal(alone.a["b"], bank().a["b"])
    assert not torch.equal(bank(seed=1).a["b"], alone.a["b"])
    assert not torch.equal(bank(layer="other").a["b"], alone.a["b"])
    assert not torch.equal(bank(ranks={"a": 3, "b": 3}).a["a"], alone.a["b"])


def test_the_update_is_added_in_place() -> None:
    made, y = bank(), torch.zeros(4, 5)
    made.b["a"].data.fill_(1)
    with torch.no_grad():
        out = made.up(y, torch.ones(1, 4, 5), torch.tensor([[0.5, 9.0]]), EXPERTS)
    assert out is y and (y == 2 * 0.5 * 2.0).all()  # two ranks, each of weight 0.5 and scale 2


def test_it_keeps_the_stack_in_eval_until_a_parameter_changes() -> None:
    made, x = bank().eval(), torch.randn(1, 4, 16)
    with torch.no_grad():
        made.down(x, EXPERTS)
        kept = made._stacked(EXPERTS)[0]
        made.down(x, EXPERTS)
        assert made._stacked(EXPERTS)[0] is kept
        made.a["a"].add_(1)
        torch.testing.assert_close(made.down(x, EXPERTS), torch.cat([x @ made.a[name].t() for name in EXPERTS], -1))
        made.down(x, ("b",))
        assert {experts for experts, _ in made._kept.made} == {EXPERTS, ("b",)}
    made.down(x, EXPERTS)
    assert made._kept.made == {}


def test_experts_of_another_type_than_the_input_work() -> None:
    made = bank().to(torch.bfloat16)
    x = torch.randn(1, 4, 16)
    z = made.down(x, EXPERTS)  # the input's type decides: no other copy of it is made
    torch.testing.assert_close(z, torch.cat([x @ made.a[name].float().t() for name in EXPERTS], -1))
    assert made.up(torch.zeros(4, 5), z, torch.ones(1, 2), EXPERTS).dtype == torch.float32
    assert made.down(x.bfloat16(), EXPERTS).dtype == torch.bfloat16


@pytest.mark.parametrize("experts", [EXPERTS, ("b",)])
def test_the_delta_is_the_update_as_one_matrix(experts: tuple[str, ...]) -> None:
    made, x, weight_E = bank(), torch.randn(1, 4, 16), torch.rand(len(experts))
    for name in EXPERTS:
        made.b[name].data.normal_()
    y = made.up(torch.zeros(4, 5), made.down(x, experts), weight_E[None], experts)
    torch.testing.assert_close(y, x[0] @ made.delta(weight_E, experts).t())
