"""One layer: equal to the explicit loop, blind to unseen experts, safe between threads and between serving and training."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.reference.loop import mixture
from twofold import plugins
from twofold.banks._stacked import slices
from twofold.banks.lora import LoraBank
from twofold.core.layer import MixtureLinear
from twofold.core.routing import Batch, Roster, Router, running

RANKS = {"a": 2, "b": 5, "c": 0, "d": 3}
SCALES = {"a": 2.0, "b": 0.5, "c": 1.0, "d": 1.0}
LENGTHS = (4, 3, 1)
ALL = Roster(tuple(RANKS), {"retrieve": tuple(RANKS), "rerank": tuple(RANKS)})
SPLIT = Roster(("a", "b", "d"), {"retrieve": ("a", "b"), "rerank": ("b", "d"), "nothing": ()})


class Given(Router):
    """Decides what it is told."""

    def __init__(self, weight: Tensor, level: str) -> None:
        super().__init__()
        self.weight, self.level = nn.Parameter(weight), level

    def forward(self, x: Tensor, z: Tensor, batch: Batch, experts: tuple[str, ...]) -> tuple[Tensor, str]:
        return self.weight, self.level


def layer(roster: Roster = ALL, router: Router | str = "uniform", *, linear: nn.Module | None = None, **options: Any) -> MixtureLinear:
    """A layer of width 6 → 7 whose Bs are off zero, the same for an expert in whatever roster."""
    torch.manual_seed(0)
    base = linear or nn.Linear(6, 7).requires_grad_(False)
    ranks = {name: RANKS[name] for name in roster.experts}
    bank = LoraBank(6, 7, ranks, {name: SCALES[name] for name in ranks}, "layer", 0)
    for name in roster.experts:
        torch.manual_seed(ord(name))
        bank.b[name].data.normal_()
    if isinstance(router, str):
        given = {"d_in": 6, "roster": roster, "tasks": tuple(roster.sees), "seed": 0, "key": "layer"}
        router = plugins.build_plugin("routers", router, options, **given)
    return MixtureLinear(base, bank, router, roster, "layer", "layer")


def run(module: MixtureLinear, x: Tensor, task: str | list[str] = "retrieve", lengths: tuple[int, ...] = LENGTHS) -> Tensor:
    """One packed pass."""
    with running(Batch(task, lengths)):
        y: Tensor = module(x)
    return y


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad.clone() for name, parameter in module.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize(("level", "shape"), [("task", (1, 4)), ("sequence", (3, 4)), ("token", (1, 8, 4))])
def test_the_stacked_form_equals_the_explicit_loop(level: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(3)
    module, x = layer(router=Given(torch.rand(shape), level)), torch.randn(1, 8, 6)
    assert isinstance(module.bank, LoraBank)
    y = run(module, x)
    y.square().sum().backward()
    stacked = gradients(module)
    module.zero_grad()
    want = mixture(module.linear, module.bank, ALL.experts, module.router.weight, level, x, LENGTHS)
    want.square().sum().backward()
    torch.testing.assert_close(y, want, rtol=1e-5, atol=1e-5)
    looped = gradients(module)
    assert stacked.keys() - looped.keys() <= {"bank.a.c", "bank.b.c"}  # of rank 0: nothing to learn
    for name, gradient in looped.items():
        torch.testing.assert_close(stacked[name], gradient, rtol=1e-4, atol=1e-4)


def test_mixed_precision_casts_the_input_once_and_its_gradients_are_those_of_fp32_but_for_rounding() -> None:
    torch.manual_seed(3)
    module, seen = layer(SPLIT, "soft"), []
    x = torch.randn(1, 8, 6, requires_grad=True)
    for part in (module.linear, module.router):
        part.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    run(module, x).square().sum().backward()
    want = {**gradients(module), "x": x.grad}
    module.zero_grad()
    x.grad = None
    seen.clear()
    with torch.autocast("cpu", torch.bfloat16):
        y = run(module, x)
    y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16 and seen[0].dtype == torch.bfloat16 and seen[0].data_ptr() == seen[1].data_ptr()
    got = {**gradients(module), "x": x.grad}
    assert got.keys() == want.keys()
    for name, gradient in want.items():
        assert got[name].dtype == torch.float32
        assert (got[name] - gradient).norm() <= 0.02 * gradient.norm(), name


def test_a_layer_where_no_expert_has_a_rank_is_the_linear_layer() -> None:
    roster = Roster(("c",), {"retrieve": ("c",)})
    module, x = layer(roster), torch.randn(1, 8, 6)
    assert torch.equal(run(module, x), module.linear(x))


def test_an_expert_that_the_task_does_not_see_gets_no_gradient_and_keeps_every_bit() -> None:
    module, x = layer(SPLIT, "soft"), torch.randn(1, 8, 6)
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    run(module, x, "retrieve").square().sum().backward()
    assert module.bank.a["d"].grad is None and module.bank.b["d"].grad is None and module.router.row["d"].grad is None
    assert all(module.bank.a[name].grad is not None for name in ("a", "b"))
    optimizer.step()
    for name, parameter in module.named_parameters():
        unseen = ".d" in name or name.startswith("linear") or "rerank" in name or "nothing" in name
        assert torch.equal(parameter, before[name]) == unseen, name


def test_a_frozen_expert_stays_bit_identical_while_others_train() -> None:
    module, x = layer(SPLIT, "soft"), torch.randn(1, 8, 6)
    module.bank.a["b"].requires_grad_(False)
    module.bank.b["b"].requires_grad_(False)
    before = module.bank.a["b"].clone(), module.bank.b["b"].clone()
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.1)
    for task in ("retrieve", "rerank"):
        run(module, x, task).square().sum().backward()
    optimizer.step()
    assert torch.equal(module.bank.a["b"], before[0]) and torch.equal(module.bank.b["b"], before[1])
    assert module.bank.a["a"].grad is not None and module.bank.a["d"].grad is not None


def test_hard_routing_is_bit_identical_to_a_model_that_has_only_that_expert() -> None:
    hard = Roster(("a", "d"), {"retrieve": ("a",), "rerank": ("d",)})
    alone = Roster(("a",), {"retrieve": ("a",)})
    x = torch.randn(1, 8, 6)
    both, one = layer(hard, "by_task"), layer(alone, "uniform")
    y, want = run(both, x), run(one, x)
    assert torch.equal(y, want)
    y.square().sum().backward()
    want.square().sum().backward()
    assert torch.equal(both.bank.a["a"].grad, one.bank.a["a"].grad) and torch.equal(both.bank.b["a"].grad, one.bank.b["a"].grad)


@pytest.mark.parametrize("router", ["uniform", "by_task", "task_gate", "soft", "topk", "frozen_random"])
def test_adding_an_expert_that_old_tasks_do_not_see_moves_no_bit_of_theirs(router: str) -> None:
    old = Roster(("a", "b"), {"retrieve": ("a", "b"), "rerank": ("b",)})
    new = Roster(("a", "b", "d"), {"retrieve": ("a", "b"), "rerank": ("b",), "classify": ("b", "d")})
    x = torch.randn(1, 8, 6)
    for task in old.sees:
        assert torch.equal(run(layer(old, router), x, task), run(layer(new, router), x, task)), task


def test_a_task_that_sees_nothing_is_the_bare_layer_also_in_company() -> None:
    x = torch.randn(1, 8, 6)
    for router in ("uniform", "task_gate", "soft", "topk"):
        module = layer(SPLIT, router)
        assert torch.equal(run(module, x, "nothing"), module.linear(x))
        y = run(module, x, ["retrieve", "nothing", "rerank"])
        torch.testing.assert_close(y[:, 4:7], module.linear(x)[:, 4:7])
        torch.testing.assert_close(y[:, :4], run(module, x[:, :4], "retrieve", (4,)))
        y.sum().backward()
        assert all(gradient.isfinite().all() for gradient in gradients(module).values())


def test_two_threads_with_different_tasks_do_not_meet() -> None:
    module, x = layer(SPLIT, "soft").eval(), torch.randn(1, 8, 6)
    want = {task: run(module, x, task).detach() for task in ("retrieve", "rerank")}
    assert not torch.equal(want["retrieve"], want["rerank"])
    barrier, wrong = threading.Barrier(2), []

    def work(task: str) -> None:
        for _ in range(50):
            with running(Batch(task, LENGTHS)), torch.no_grad():
                barrier.wait()
                if not torch.allclose(module(x), want[task], rtol=1e-6, atol=1e-6):
                    wrong.append(task)

    threads = [threading.Thread(target=work, args=(task,)) for task in want]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("router", ["uniform", "by_task", "task_gate"])
def test_folding_is_exact_and_undone_bit_for_bit(router: str) -> None:
    module, x = layer(SPLIT, router).eval(), torch.randn(1, 8, 6)
    weight = module.linear.weight.clone()
    for task in ("retrieve", "rerank", "nothing"):
        want = run(module, x, task)
        module.fold(task)
        torch.testing.assert_close(run(module, x, task), want, rtol=0, atol=1e-5)
        with pytest.raises(RuntimeError, match=f"folded for task '{task}'.*unfold"):
            run(module, x, "retrieve" if task == "rerank" else "rerank")
        module.fold(task)  # again: not twice
        torch.testing.assert_close(run(module, x, task), want, rtol=0, atol=1e-5)
        module.unfold()
        assert torch.equal(module.linear.weight, weight)
        assert torch.equal(run(module, x, task), want)


@pytest.mark.parametrize("router", ["soft", "topk", "frozen_random"])
def test_folding_refuses_routing_that_looks_at_the_input(router: str) -> None:
    module = layer(SPLIT, router)
    weight = module.linear.weight.clone()
    with pytest.raises(ValueError, match="layer layer: its routing depends on the input"):
        module.fold("retrieve")
    assert module.folded is None and torch.equal(module.linear.weight, weight)


class Quantised(nn.Module):
    """A linear layer that keeps its weight as integers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randint(-9, 9, (7, 6), dtype=torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.float().t() * 0.1


def test_any_linear_module_can_be_wrapped_but_only_a_float_weight_folds() -> None:
    module, x = layer(linear=Quantised()), torch.randn(1, 8, 6)
    assert not torch.equal(run(module, x), module.linear(x))
    with pytest.raises(ValueError, match="cannot fold into a Quantised"):
        module.fold("retrieve")


def test_serving_in_inference_mode_does_not_spoil_training_after_it() -> None:
    module, x = layer(SPLIT, "soft"), torch.randn(1, 8, 6)
    slices.cache_clear()  # as in a process that serves before it trains
    module.eval()
    with torch.inference_mode():
        run(module, x)
    module.train()
    run(module, x).sum().backward()
    assert module.bank.a["a"].grad is not None
    module.eval()
    module.requires_grad_(False)
    module.router.requires_grad_(True)
    with torch.inference_mode():
        run(module, x)
    run(module, x).sum().backward()  # the kept stack is used where only the router trains
    assert module.router.row["a"].grad is not None


@pytest.mark.parametrize("fused", [True, False])
def test_what_eval_keeps_is_made_anew_after_an_optimiser_step(fused: bool) -> None:
    module, x = layer(SPLIT, "soft"), torch.randn(1, 8, 6)
    with torch.no_grad():
        before = run(module.eval(), x)
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.1, fused=fused)
    run(module.train(), x).square().sum().backward()
    optimizer.step()
    with torch.no_grad():
        after = run(module.eval(), x)
        module.bank._kept.made.clear()
        module.router._kept.made.clear()
        assert torch.equal(after, run(module, x))
    assert not torch.allclose(before, after)


def test_a_padded_pass_equals_a_packed_one() -> None:
    module, x = layer(SPLIT, "soft"), torch.randn(1, 8, 6)
    rows, mask = torch.randn(3, 4, 6), torch.arange(4)[None] < torch.tensor(LENGTHS)[:, None]
    rows[mask] = x[0]
    for tasks in ("retrieve", ["retrieve", "rerank", "retrieve"]):
        with running(Batch(tasks, LENGTHS, mask)):
            y = module(rows)
        torch.testing.assert_close(y[mask], run(module, x, tasks)[0])


@pytest.mark.parametrize("router", ["uniform", "soft", "topk"])
def test_a_table_of_positions_is_a_batch_of_its_own(router: str) -> None:
    """As DeBERTa sends one through its layers, beside padded texts: what it gives does not depend on them."""
    mask_SL, table, texts = torch.ones(3, 4, dtype=torch.bool), torch.randn(1, 9, 6), torch.randn(3, 4, 6)
    module = layer(SPLIT, router)
    with torch.no_grad():
        want = run(module, table, "retrieve", (9,))
        with running(Batch("retrieve", (4, 4, 4), mask_SL)) as batch:
            module(texts)
            noted = batch.routings["layer"]
            torch.testing.assert_close(module(table), want)
            assert batch.routings == {"layer": noted} and batch.routings["layer"] is noted  # of the texts, as it was
            assert list(batch.tables) == ["layer"]
        tasks = ("retrieve", "rerank", "retrieve")
        with running(Batch(tasks, (4, 4, 4), mask_SL)), pytest.raises(ValueError, match="3 tasks for 1 segments"):
            module(table)
