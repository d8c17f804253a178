"""Conflict where it was planted, agreement where it was planted, and intervals that cover what they should."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.probes.conftest import MakeSystem
from twofold.data.sources import Dataset
from twofold.probes.conflict import Cell, _measured, run
from twofold.tasks import StepResult

QUICK: dict[str, Any] = {"queries": 24, "batch": 3}


def plant(monkeypatch: pytest.MonkeyPatch, system: Any, directions: dict[str, float], noise: float) -> None:
    """Both tasks' losses are linear in the experts: a common direction times a factor of the task's, and noise of every batch."""
    model = system.embedder
    parameters = [p for group, members in model.groups().items() if group.startswith("expert:") for _, p in members]
    common = [torch.randn(p.shape, generator=torch.Generator().manual_seed(i)) for i, p in enumerate(parameters)]

    def planted(name: str) -> Any:
        def step(examples: Any, context: Any) -> StepResult:
            draw = torch.Generator().manual_seed(sum(map(ord, "".join(e.query_id for e in examples))))
            parts = [
                (p * (directions[name] * c + noise * torch.randn(p.shape, generator=draw))).sum()
                for p, c in zip(parameters, common, strict=True)
            ]
            loss = torch.stack(parts).sum()
            context.backward(loss)
            return StepResult(float(loss.detach()), 1, 0)

        return step

    for name in directions:
        monkeypatch.setattr(model.tasks[name], "step", planted(name))


def test_a_planted_conflict_is_negative_and_below_the_ceiling(monkeypatch: pytest.MonkeyPatch, make: MakeSystem, dataset: Dataset) -> None:
    system = make()
    plant(monkeypatch, system, {"retrieve": 1.0, "rerank": -0.5}, noise=1.0)
    report = run(system, dataset, **QUICK)
    whole = report["tables"]["groups"][0]
    assert whole["level"] == "all"
    cosine, ceiling = float(str(whole["cosine"])), float(str(whole["ceiling"]))
    assert float(str(whole["high"])) < 0 < ceiling
    assert cosine == pytest.approx(-ceiling, abs=0.05)  # the two want exactly the opposite
    assert whole["corrected"] == pytest.approx(-1, abs=0.15)
    assert float(str(whole["gap_low"])) > 0
    assert whole["within_a"] == pytest.approx(0.5, abs=0.05)  # signal 1, noise 1
    assert whole["within_b"] == pytest.approx(0.2, abs=0.05)  # signal ¼, noise 1
    assert report["facts"]["retrieve~rerank parts"] == 12 * 3 * 2


def test_two_tasks_that_want_the_same_reach_the_ceiling(monkeypatch: pytest.MonkeyPatch, make: MakeSystem, dataset: Dataset) -> None:
    system = make()
    plant(monkeypatch, system, {"retrieve": 1.0, "rerank": 1.0}, noise=3.0)
    whole = run(system, dataset, **QUICK)["tables"]["groups"][0]
    assert whole["corrected"] == pytest.approx(1, abs=0.25)
    assert float(str(whole["cosine"])) < 0.2  # low, and no conflict: noise
    assert float(str(whole["gap_low"])) < 0 < float(str(whole["gap_high"]))
    assert whole["magnitude"] == pytest.approx(1, abs=0.01)


def test_real_gradients_of_every_level_are_there(make: MakeSystem, dataset: Dataset) -> None:
    report = run(make(), dataset, **QUICK)
    levels = {str(row["level"]) for row in report["tables"]["groups"]}
    assert levels == {"all", "slice", "block", "module", "matrix"}
    assert {row["part"] for row in report["tables"]["groups"] if row["level"] == "slice"} >= {"expert:shared", "router"}
    for row in [*report["tables"]["groups"], *report["tables"]["parts"]]:
        assert -1 <= float(str(row["low"])) <= float(str(row["high"])) <= 1
        assert 0 <= float(str(row["negative"])) <= 1 and 0 < float(str(row["magnitude"])) <= 1


def test_groups_are_gradients_side_by_side() -> None:
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(2, 4, 30))
    pieces = [Cell(x @ y.T, x @ x.T, y @ y.T) for x, y in ((a[:, :10], b[:, :10]), (a[:, 10:], b[:, 10:]))]
    whole = Cell(*(np.sum(each, axis=0) for each in zip(*pieces, strict=True)))
    (row,) = _measured([whole], 0)
    want = (a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T
    assert row["cosine"] == pytest.approx(want.mean(), abs=1e-6)


def test_the_interval_covers_the_truth() -> None:
    """Of fifty experiments with a known cosine, about nineteen of twenty intervals hold it (a bootstrap of twelve is a little narrow)."""
    draw, inside = np.random.default_rng(1), 0
    for i in range(50):
        common = draw.normal(size=400)
        a, b = (sign * common + 2 * draw.normal(size=(12, 400)) for sign in (1, -1))
        (row,) = _measured([Cell(a @ b.T, a @ a.T, b @ b.T)], i)
        signal = float((common @ common) / 400)
        inside += float(str(row["low"])) <= -signal / (signal + 4) <= float(str(row["high"]))
    assert inside >= 40


def test_nothing_of_the_system_changes(make: MakeSystem, dataset: Dataset) -> None:
    system = make()
    before = {name: tensor.clone() for name, tensor in system.embedder.state_dict().items()}
    run(system, dataset, **QUICK)
    assert all(torch.equal(tensor, before[name]) for name, tensor in system.embedder.state_dict().items())
