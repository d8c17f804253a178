"""The constants are the router's own means, and the experts are those of our mixture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.methods.conftest import THREE
from tests.tiny_trial import stirred, tiny_examples, tiny_unified
from twofold.core.inject import LayerPlan, mixtures
from twofold.methods import moe_lora
from twofold.methods._changes import mean_routing, to_means
from twofold.methods.mixture_mean import build
from twofold.records import Example

TASKS = ("retrieve", "rerank")


def batches(task: str, step: int) -> list[Example]:
    return tiny_examples(3, seed=step + 10 * TASKS.index(task))


def test_it_trains_what_our_mixture_trains() -> None:
    (ours,), (mean,) = (make(tasks=TASKS, rank=4, scope="block").members for make in (moe_lora.build, build))
    assert (mean.plan, mean.stages) == (ours.plan, ours.stages)


@pytest.mark.parametrize("scope", ["linear", "block"])
def test_each_tasks_weights_become_the_mean_of_its_routings(backbone_dir: Path, scope: str) -> None:
    model = stirred(tiny_unified(backbone_dir, LayerPlan(THREE, router="soft", scope=scope)), size=0.3).eval()
    want = {task: mean_routing(model, batches, task, 2) for task in TASKS}
    vectors, pairs = model.encode(["ba du"]), [("ba", "du fe")]
    to_means(TASKS, 2)(model, batches)
    for layer in mixtures(model):
        for task in TASKS:
            found = layer.router.constant(task, layer.roster.experts)
            assert found is not None
            torch.testing.assert_close(found.detach(), want[task][layer.layer].float())
    assert not np.array_equal(model.encode(["ba du"]), vectors)
    live = model.score(pairs)
    model.fold("rerank")
    np.testing.assert_allclose(model.score(pairs), live, atol=1e-4)


def test_it_looks_at_something() -> None:
    with pytest.raises(ValueError, match="batches 0"):
        build(tasks=TASKS, batches=0)
