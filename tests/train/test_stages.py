"""Which steps are whose, what trains, and at what rate."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.conftest import MakeConfig
from tests.train.setups import make_setup, with_stages
from twofold.config import OptimConfig
from twofold.methods import Member, Stage
from twofold.train.stages import make_optimiser, rate_factor, set_rates, spans, trainable, trained

BOTH = ("retrieve", "rerank")


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=5), st.integers(0, 500))
def test_stages_share_the_steps_without_gap(shares: list[float], steps: int) -> None:
    stages = tuple(Stage(f"s{i}", ("retrieve",), ("expert:*",), share=share) for i, share in enumerate(shares))
    found = spans(Member("m", ("retrieve",), stages), steps)
    assert [span.stage for span in found] == list(stages)
    assert (found[0].start, found[-1].end) == (0, steps)
    assert all(a.end == b.start for a, b in pairwise(found))
    assert all(abs((span.end - span.start) - share / sum(shares) * steps) <= 1 for span, share in zip(found, shares, strict=True))


def test_only_what_a_stage_names_requires_a_gradient(make_config: MakeConfig) -> None:
    setup = make_setup(make_config(tasks={"rerank": {"batch": 2, "options": {"head": "both"}}}))
    model = setup.model

    def training(*patterns: str, tasks: tuple[str, ...] = BOTH) -> set[str]:
        trainable(model, Stage("s", tasks, patterns))
        return {group for group, members in model.groups().items() for _, p in members if p.requires_grad}

    assert training("expert:*", "router", "head:*") == {"expert:embedding", "expert:reranking", "expert:shared", "router", "head:rerank"}
    assert training("expert:embedding", "head:*", tasks=("retrieve",)) == {"expert:embedding"}
    assert training("router") == {"router"}
    assert training("backbone") == {"backbone"}
    assert "expert:shared" in training("expert:[rs]*")


def test_a_pattern_for_nothing_is_an_error(make_config: MakeConfig) -> None:
    model = make_setup(make_config()).model
    with pytest.raises(ValueError, match="trains 'expert:embeding', which is none of"):
        trainable(model, Stage("s", BOTH, ("expert:embeding", "router")))
    with pytest.raises(ValueError, match="has no parameters"):
        trainable(model, Stage("s", ("retrieve",), ("head:*",)))


def test_a_frozen_random_router_stays_frozen(make_config: MakeConfig) -> None:
    setup = make_setup(make_config(method={"name": "moe_lora", "options": {"router": "frozen_random"}}))
    trainable(setup.model, setup.member.stages[0])
    assert not any(p.requires_grad for _, p in setup.model.groups()["router"])
    assert not {name for name, _ in setup.model.groups()["router"]} & trained(setup.model, setup.member).keys()


def test_trained_is_the_union_over_stages(make_config: MakeConfig) -> None:
    setup = make_setup(make_config())
    member = with_stages(setup.member, Stage("a", ("retrieve",), ("expert:embedding",)), Stage("b", BOTH, ("router",)))
    names = {name for group in ("expert:embedding", "router") for name, _ in setup.model.groups()[group]}
    assert trained(setup.model, member).keys() == names


def test_every_part_has_its_own_rate(make_config: MakeConfig) -> None:
    optim = OptimConfig(lr=1e-3, lr_router=2e-3, lr_heads=3e-3, lr_backbone=4e-3, weight_decay=0.5)
    setup = make_setup(make_config())
    optimiser = make_optimiser(trainable(setup.model, Stage("s", BOTH, ("expert:*", "router", "head:*", "backbone"))), optim)
    rates = set_rates(optimiser, 0.5)
    want = {
        "expert:embedding": 1e-3,
        "expert:reranking": 1e-3,
        "expert:shared": 1e-3,
        "router": 2e-3,
        "head:rerank": 3e-3,
        "backbone": 4e-3,
    }
    assert rates == {group: rate / 2 for group, rate in want.items()}
    assert set_rates(optimiser, 1.0) == want
    assert all(group["weight_decay"] == 0.5 for group in optimiser.param_groups)


def test_what_experts_share_has_the_experts_rate(make_config: MakeConfig) -> None:
    setup = make_setup(make_config(method={"name": "hydralora"}))
    optimiser = make_optimiser(trainable(setup.model, setup.member.stages[0]), OptimConfig(lr=1e-3, lr_router=2e-3, lr_heads=2e-3))
    assert set_rates(optimiser, 1.0)["bank"] == 1e-3


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules_are_those_of_transformers(schedule: str) -> None:
    """From the end of the warm-up on; the warm-up itself begins at its first part instead of 0, so that no step is lost."""
    import transformers

    optim = OptimConfig.model_validate({"warmup": 0.2, "schedule": schedule})
    dummy = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    name = {"constant": "constant_with_warmup"}.get(schedule, schedule)
    theirs = transformers.get_scheduler(name, dummy, num_warmup_steps=4, num_training_steps=20)
    for step in range(20):
        want = (step + 1) / 4 if step < 4 else theirs.get_last_lr()[0]
        assert rate_factor(optim, step, 20) == pytest.approx(want)
        dummy.step()
        theirs.step()


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(1, 50), st.sampled_from(["constant", "linear", "cosine"]))
def test_rates_are_shares_of_the_full_rate(warmup: float, steps: int, schedule: str) -> None:
    optim = OptimConfig.model_validate({"warmup": warmup, "schedule": schedule})
    factors = [rate_factor(optim, step, steps) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == 1
