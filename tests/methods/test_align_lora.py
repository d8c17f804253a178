"""The divergence of what the tasks' low-rank states were in the step before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.methods.joint import companion_of, joint, train
from tests.tiny import tiny_pack
from twofold.core.routing import Routing
from twofold.methods.align_lora import Alignment, divergence
from twofold.train.stages import Phase

TASKS = ("retrieve", "rerank")


def test_it_is_nothing_in_the_first_step_and_the_mean_divergence_from_the_other_task_afterwards(tmp_path: Path) -> None:
    setup = joint(tmp_path, "align_lora", {"rank": 3, "weight": 0.5})
    own = companion_of(setup)
    assert isinstance(own, Alignment)
    passes = {task: setup.model.backbone(tiny_pack((5, 3), seed=i), task)[1] for i, task in enumerate(TASKS)}
    for task in TASKS:
        loss = own.auxiliary(task)(passes[task])  # type: ignore[misc]
        assert loss == 0
    own.after_step(1, None)

    def states(routings: dict[str, Routing]) -> torch.Tensor:
        found = [routing.z for routing in routings.values()]
        assert all(each is not None and each.shape == (1, 8, 3) for each in found)
        return torch.cat(found, dim=-1)[0]  # type: ignore[arg-type]

    retrieve, rerank = states(passes["retrieve"]), states(passes["rerank"]).detach()
    got = own.auxiliary("retrieve")(passes["retrieve"])  # type: ignore[misc]
    total = 0.0
    for f in range(retrieve.shape[1]):
        m, v = retrieve[:, f].detach().mean(), retrieve[:, f].detach().var(correction=0)
        n, w = rerank[:, f].mean(), rerank[:, f].var(correction=0)
        total += float(((v + (m - n) ** 2) / w + (w + (m - n) ** 2) / v) / 2 - 1)
    assert got.item() == pytest.approx(0.5 * total / retrieve.shape[1], rel=1e-3)
    got.backward()
    a = [p for name, p in setup.model.groups()["expert:shared"] if ".a." in name]
    assert all(p.grad is not None and (p.grad != 0).any() for p in a)


def test_one_task_alone_is_aligned_with_nobody(tmp_path: Path) -> None:
    own = companion_of(joint(tmp_path, "align_lora", tasks={"rerank": {"batch": 2}}))
    own.stage = type(own.stage)("s", ("retrieve",), ("expert:*",))
    routings = {"l": Routing("l", ("shared",), ("retrieve",), torch.ones(1, 1), "task", z=torch.randn(1, 4, 24 * 12))}
    assert own.auxiliary("retrieve")(routings) == 0  # type: ignore[misc]


def test_the_tasks_states_come_nearer(tmp_path: Path) -> None:
    """With a weight that outweighs the tasks' own losses."""

    def ends(weight: float) -> float:
        found: list[float] = []

        def look(step: int, phase: Phase) -> None:
            t = phase.companion.tensors
            found.append(float(divergence(*(t[f"{task}.{what}"] for task in TASKS for what in ("mean", "square")))))

        train(joint(tmp_path / str(weight), "align_lora", {"rank": 4, "weight": weight}, steps=12), look)
        return found[-1]

    assert ends(100.0) < 0.7 * ends(0.0)
