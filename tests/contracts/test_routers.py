"""What every router promises; a new file in `routers/` is tested without further ado."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from twofold import plugins
from twofold.banks.lora import LoraBank
from twofold.core.routing import Batch, Roster, Router, checkpoint_contexts, current, running

EXPERTS = ("a", "b", "c")
ROSTER = Roster(EXPERTS, {"retrieve": ("a", "b"), "rerank": ("b", "c"), "classify": ("c",)})
LENGTHS = (5, 3, 1)
MIXED = ("rerank", "retrieve", "classify")


RANK = 2
"""Of each expert."""


def build(name: str, key: str = "layers.0") -> Router:
    """A router with its default options over a bank of three experts."""
    bank = LoraBank(8, 7, dict.fromkeys(EXPERTS, RANK), dict.fromkeys(EXPERTS, 2.0), "layers.0.query", seed=0)
    draw = torch.Generator().manual_seed(4)
    for parameter in bank.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=draw))
    given = {"d_in": 8, "roster": ROSTER, "tasks": tuple(ROSTER.sees), "seed": 0, "key": key, "bank": bank}
    made: Router = plugins.build_plugin("routers", name, {}, **given)
    return made


@pytest.fixture(params=plugins.names("routers"))
def router(request: pytest.FixtureRequest) -> Router:
    """The router with its default options and learned-looking parameters."""
    made = build(request.param)
    draw = torch.Generator().manual_seed(1)
    for parameter in made.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=draw))
    return made


def stream(lengths: tuple[int, ...] = LENGTHS) -> tuple[Tensor, Tensor]:
    """(x, z) of a packed stream, the same every time; z of all experts."""
    draw = torch.Generator().manual_seed(2)
    return torch.randn(1, sum(lengths), 8, generator=draw), torch.randn(1, sum(lengths), RANK * len(EXPERTS), generator=draw)


def visible(z: Tensor, experts: tuple[str, ...]) -> Tensor:
    """What a layer computes of z: the states of the experts that the pass sees."""
    return torch.cat([z[..., RANK * i : RANK * (i + 1)] for i, name in enumerate(EXPERTS) if name in experts], dim=-1)


def tokenwise(router: Router, batch: Batch, x: Tensor, z: Tensor) -> Tensor:
    """(tokens, E) over all experts of the roster, whatever the router's level."""
    experts = ROSTER.visible(batch.tasks)
    weight, level, *_ = router(x, visible(z, experts), batch, experts)
    spread = batch.spread(weight, level).expand(*x.shape[:-1], len(experts)).flatten(0, -2)
    full = spread.new_zeros(len(spread), len(EXPERTS))
    full[:, [EXPERTS.index(name) for name in experts]] = spread
    return full


@pytest.mark.parametrize("task", ["retrieve", "classify", MIXED])
def test_weights_have_their_shape_and_are_finite_and_not_negative(router: Router, task: str | tuple[str, ...]) -> None:
    batch, (x, z) = Batch(task, LENGTHS), stream()
    experts = ROSTER.visible(batch.tasks)
    weight, level, *_ = router(x, visible(z, experts), batch, experts)
    assert weight.shape == {"task": (1, len(experts)), "sequence": (3, len(experts)), "token": (1, 9, len(experts))}[level]
    assert weight.dtype == torch.float32 and weight.isfinite().all() and (weight >= 0).all()
    assert (weight.sum(-1) > 0).all()


def test_an_expert_that_a_task_does_not_see_has_weight_zero(router: Router) -> None:
    weight = tokenwise(router, Batch(MIXED, LENGTHS), *stream())
    for part, task in zip(weight.split(list(LENGTHS)), MIXED, strict=True):
        for e, name in enumerate(EXPERTS):
            assert (part[:, e] == 0).all() if name not in ROSTER.sees[task] else part[:, e].isfinite().all()


def test_a_segments_weights_do_not_depend_on_its_neighbours(router: Router) -> None:
    x, z = stream()
    together = tokenwise(router, Batch(MIXED, LENGTHS), x, z)
    at = 0
    for length, task in zip(LENGTHS, MIXED, strict=True):
        alone = tokenwise(router, Batch(task, (length,)), x[:, at : at + length], z[:, at : at + length])
        torch.testing.assert_close(together[at : at + length], alone, rtol=1e-5, atol=1e-6)
        at += length


@pytest.mark.parametrize("task", ["retrieve", MIXED])
def test_the_padded_layout_gives_the_same_weights(router: Router, task: str | tuple[str, ...]) -> None:
    (x, z), mask = stream(), torch.arange(5)[None] < torch.tensor(LENGTHS)[:, None]
    rows_x, rows_z = torch.full((3, 5, 8), 50.0), torch.full((3, 5, 6), -50.0)
    rows_x[mask], rows_z[mask] = x[0], z[0]
    padded = tokenwise(router, Batch(task, LENGTHS, mask), rows_x, rows_z)[mask.flatten()]
    torch.testing.assert_close(padded, tokenwise(router, Batch(task, LENGTHS), x, z), rtol=1e-5, atol=1e-6)


def test_it_computes_in_fp32_under_autocast(router: Router) -> None:
    x, z = stream()
    want = tokenwise(router, Batch(MIXED, LENGTHS), x.bfloat16(), z.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        got = tokenwise(router, Batch(MIXED, LENGTHS), x.bfloat16(), z.bfloat16())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_gradients_reach_its_parameters(router: Router) -> None:
    learned = [parameter for parameter in router.parameters() if parameter.requires_grad]
    if not learned:
        pytest.skip("nothing to learn")
    loss = torch.zeros(())
    for task in ROSTER.sees:
        loss = loss + (tokenwise(router, Batch(task, LENGTHS), *stream()) * torch.tensor([1.0, 5.0, -2.0])).square().mean()
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in learned)
    assert any((parameter.grad != 0).any() for parameter in learned if parameter.grad is not None)


def test_a_constant_is_what_forward_gives(router: Router) -> None:
    for task, names in ROSTER.sees.items():
        weight_E = router.constant(task, names)
        if weight_E is None:
            continue
        assert weight_E.shape == (len(names),)
        for seed in (0, 1):
            torch.manual_seed(seed)
            weight, level, *_ = router(torch.randn(1, 9, 8), torch.randn(1, 9, RANK * len(names)), Batch(task, LENGTHS), names)
            assert level == "task" and torch.equal(weight[0], weight_E)
        wider = router.constant(task, EXPERTS)
        assert wider is not None and wider.shape == (3,)
        assert [bool(w) for w in wider] == [name in names for name in EXPERTS]


def test_recomputing_under_checkpointing_gives_the_same_gradients(router: Router) -> None:
    x, z = stream()

    def block(x: Tensor) -> Tensor:
        return tokenwise(router, current(), x, z).square().sum() * x.square().sum()

    gradients = []
    for again in (False, True):
        router.zero_grad()
        leaf = x.clone().requires_grad_()
        losses = []
        for task in ("retrieve", MIXED):  # two passes before one backward
            with running(Batch(task, LENGTHS)):
                losses.append(checkpoint(block, leaf, use_reentrant=False, context_fn=checkpoint_contexts) if again else block(leaf))
        torch.stack(losses).sum().backward()
        gradients.append([leaf.grad, *(parameter.grad for parameter in router.parameters())])
    for plain, recomputed in zip(*gradients, strict=True):
        assert (plain is None and recomputed is None) or torch.equal(plain, recomputed)


def test_it_starts_the_same_again_and_differently_in_another_layer() -> None:
    for name in plugins.names("routers"):

        def start(key: str, name: str = name) -> list[Tensor]:
            return list(build(name, key).parameters())

        assert all(torch.equal(a, b) for a, b in zip(start("layers.0"), start("layers.0"), strict=True)), name
        drawn = [(a, b) for a, b in zip(start("layers.0"), start("layers.1"), strict=True) if a.any()]
        assert not any(torch.equal(a, b) for a, b in drawn), name
