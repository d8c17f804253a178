"""One A, many B's: the sum as it reads, and what sharing costs."""

from __future__ import annotations

import torch

from twofold.banks.shared_down import build

RANKS = {"a": 2, "b": 4, "c": 3}
EXPERTS = ("a", "c")


def test_it_is_the_sum_over_experts_of_their_b_times_the_shared_a() -> None:
    bank, x = build(6, 5, RANKS, {"a": 2.0, "b": 1.0, "c": 0.5}, "layer", 0), torch.randn(1, 4, 6)
    for name in RANKS:
        bank.b[name].data.normal_()
    weight_TE = torch.rand(1, 4, 2)
    y = bank.up(torch.zeros(4, 5), bank.down(x, EXPERTS), weight_TE, EXPERTS)
    for t in range(4):
        want = torch.zeros(5)
        for e, name in enumerate(EXPERTS):
            want = want + weight_TE[0, t, e] * bank.scales[name] * bank.b[name] @ (bank.A[: RANKS[name]] @ x[0, t])
        torch.testing.assert_close(y[t], want)


def test_there_is_one_a_of_the_largest_rank() -> None:
    bank = build(6, 5, RANKS, dict.fromkeys(RANKS, 1.0), "layer", 0)
    assert {name: tuple(p.shape) for name, p in bank.named_parameters()} == {"A": (4, 6), "b.a": (5, 2), "b.b": (5, 4), "b.c": (5, 3)}


def test_equal_weights_leave_equal_experts_equal() -> None:
    """The trap that the docstring names; and other weights make them differ."""
    for weight, same in ((torch.ones(1, 2), True), (torch.tensor([[1.3, 0.7]]), False)):
        bank, x = build(6, 5, {"a": 2, "b": 2}, {"a": 1.0, "b": 1.0}, "layer", 0), torch.randn(1, 4, 6)
        optimiser = torch.optim.SGD(bank.parameters(), lr=0.1)
        for _ in range(3):
            bank.up(torch.zeros(4, 5), bank.down(x, ("a", "b")), weight, ("a", "b")).sub(1).square().sum().backward()
            optimiser.step()
            optimiser.zero_grad()
        assert (bank.b["a"] != 0).all()
        assert torch.equal(bank.b["a"], bank.b["b"]) == same
