"""Affinity of tasks of which it is known."""

from __future__ import annotations

import pytest
import torch

from tests.probes.conftest import MakeSystem
from tests.probes.test_conflict import QUICK, plant
from twofold.data.sources import Dataset
from twofold.errors import ConfigError
from twofold.model.system import System
from twofold.probes.affinity import moved, run


def rows(system: System, dataset: Dataset) -> dict[tuple[str, str], dict[str, object]]:
    found = run(system, dataset, **QUICK)["tables"]["affinity"]
    return {(str(row["of"]), str(row["to"])): dict(row) for row in found}


def test_opposite_tasks_harm_each_other_and_help_themselves(monkeypatch: pytest.MonkeyPatch, make: MakeSystem, dataset: Dataset) -> None:
    system = make(size=0.05)
    plant(monkeypatch, system, {"retrieve": 1.0, "rerank": -1.0}, noise=0.0)
    # a linear loss may be below 0, where a share of it turns round: this one starts at its own norm
    for name in ("retrieve", "rerank"):
        inner = system.embedder.tasks[name].step
        monkeypatch.setattr(system.embedder.tasks[name], "step", lambda e, c, inner=inner: (r := inner(e, c))._replace(loss=r.loss + 1e4))
    found = rows(system, dataset)
    assert float(str(found["retrieve", "retrieve"]["affinity"])) > 0 > float(str(found["retrieve", "rerank"]["affinity"]))
    assert found["rerank", "retrieve"]["of_own"] == found["retrieve", "rerank"]["of_own"] == pytest.approx(-100, abs=2)
    assert found["retrieve", "retrieve"]["of_own"] == 100


def test_real_tasks_learn_from_their_own_steps(make: MakeSystem, dataset: Dataset) -> None:
    found = rows(make(size=0.1), dataset)
    assert len(found) == 4
    assert all(float(str(row["low"])) <= float(str(row["affinity"])) <= float(str(row["high"])) for row in found.values())


def test_a_step_has_the_length_that_was_asked_for_and_is_taken_back() -> None:
    parameter = torch.nn.Parameter(torch.randn(5, generator=torch.Generator().manual_seed(0)))
    before, flat = parameter.detach().clone(), torch.tensor([1.0, 0, 0, 0, 0])
    with moved({"x": parameter}, {"x": flat}, 0.1):
        assert torch.allclose(before - parameter.detach(), flat * 0.1 * before.norm(), atol=1e-6)
    assert torch.equal(parameter.detach(), before)


def test_nothing_of_the_system_changes(make: MakeSystem, dataset: Dataset) -> None:
    system = make()
    before = {name: tensor.clone() for name, tensor in system.embedder.state_dict().items()}
    run(system, dataset, **QUICK)
    assert all(torch.equal(tensor, before[name]) for name, tensor in system.embedder.state_dict().items())


def test_steps_and_rounds_that_say_nothing_are_refused(make: MakeSystem, dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="it is above 0"):
        run(make(), dataset, step=0.0)
    with pytest.raises(ConfigError, match="two are needed"):
        run(make(), dataset, queries=24, batch=5)
