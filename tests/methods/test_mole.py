"""Gates over frozen specialists, and the balance loss."""

from __future__ import annotations

import math

import pytest
import torch

from twofold.core.routing import Routing
from twofold.methods.mole import build, gate_balance

TASKS = ("retrieve", "rerank")


def routings(*gates: list[list[float]]) -> dict[str, Routing]:
    """Two layers for each gate, as a block's layers share one."""
    found = {}
    for i, gate in enumerate(gates):
        weight = torch.tensor(gate)
        found |= {name: Routing(name, ("a", "b"), ("rerank",), weight, "sequence") for name in (f"{i}.query", f"{i}.key")}
    return found


def test_only_the_gates_learn() -> None:
    (member,) = build(tasks=TASKS).members
    (stage,) = member.stages
    assert stage.trains == ("router",)
    assert member.plan.experts == ()
    assert member.before is not None


def test_the_balance_is_minus_the_sum_of_logs_of_the_mean_gate() -> None:
    """Two texts, two gates: means (0.4, 0.6) and (0.5, 0.5)."""
    given = routings([[0.2, 0.8], [0.9, 0.1]], [[0.6, 0.4], [0.1, 0.9]])
    want = (-math.log(0.4) - math.log(0.6) - 2 * math.log(0.5)) / 2
    assert float(gate_balance(given)) == pytest.approx(want)
    even = routings([[0.5, 0.5]], [[0.5, 0.5]])
    assert float(gate_balance(even)) == pytest.approx(2 * math.log(2))
    assert float(gate_balance(even)) < float(gate_balance(routings([[0.4, 0.6]], [[0.5, 0.5]])))


def test_a_masked_expert_is_left_out_and_its_gradient_is_none() -> None:
    weight = torch.tensor([[0.0, 1.0]], requires_grad=True)
    loss = gate_balance({"0.query": Routing("0.query", ("a", "b"), ("rerank",), weight, "sequence")})
    loss.backward()
    assert float(loss.detach()) == 0
    assert weight.grad is not None and weight.grad.isfinite().all()


def test_alpha_weighs_it() -> None:
    given = routings([[0.2, 0.8]])
    (stage,) = build(tasks=TASKS, alpha=0.25).members[0].stages
    assert stage.auxiliary is not None
    assert float(stage.auxiliary(given)) == pytest.approx(0.25 * float(gate_balance(given)))
    assert build(tasks=TASKS, alpha=0.0).members[0].stages[0].auxiliary is None
