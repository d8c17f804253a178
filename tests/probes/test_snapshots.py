"""A model as it was at its checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.probes.conftest import MakeSystem
from twofold.checkpoint import save_tensors, write_folder
from twofold.model.state import state_of
from twofold.probes._snapshots import snapshots
from twofold.train.state import WEIGHTS


def test_steps_in_order_and_the_model_afterwards_as_before(make: MakeSystem, tmp_path: Path) -> None:
    model, notes = make().embedder, list[str]()
    own = {name: tensor.clone() for name, tensor in state_of(model).items()}
    for step in (20, 100, 5):
        tensors = {name: tensor + step for name, tensor in own.items()}
        write_folder(tmp_path / f"members/unified/checkpoints/step-{step:09d}", lambda folder, t=tensors: save_tensors(folder / WEIGHTS, t))  # type: ignore[misc]
    write_folder(
        tmp_path / "members/unified/checkpoints/step-000000200", lambda folder: save_tensors(folder / WEIGHTS, {"x": torch.zeros(1)})
    )
    seen = []
    for step in snapshots(model, tmp_path, notes):
        seen.append(step)
        assert all(torch.equal(tensor, own[name] + step) for name, tensor in state_of(model).items())
    assert seen == [5, 20, 100]
    assert all(torch.equal(tensor, own[name]) for name, tensor in state_of(model).items())
    assert len(notes) == 1 and "another mixture" in notes[0]


def test_a_broken_look_leaves_the_model_as_it_was(make: MakeSystem, tmp_path: Path) -> None:
    model = make().embedder
    own = {name: tensor.clone() for name, tensor in state_of(model).items()}
    tensors = {name: tensor + 1 for name, tensor in own.items()}
    write_folder(tmp_path / "members/unified/checkpoints/step-000000001", lambda folder: save_tensors(folder / WEIGHTS, tensors))
    looking = snapshots(model, tmp_path, [])
    next(looking)
    looking.close()  # type: ignore[attr-defined]
    assert all(torch.equal(tensor, own[name]) for name, tensor in state_of(model).items())
