"""A model as it was at each checkpoint of its training."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch

from twofold.checkpoint import load_tensors, verify
from twofold.model.state import state_of
from twofold.model.unified import UnifiedModel
from twofold.train.state import WEIGHTS


@torch.no_grad()
def snapshots(model: UnifiedModel, trial: Path, notes: list[str]) -> Iterator[int]:
    """Yields the steps of a trial's checkpoints, oldest first, while the model has the weights of each; it has its own afterwards.

    Experts, routers and heads are put in place; a backbone that was trained keeps its last weights, which is noted. A checkpoint of
    another shape (another member's, or one from before a change of routers) is left out and noted. Raises CheckpointError for a
    damaged one.
    """
    found = sorted(
        (int(match[1]), path) for path in trial.glob("members/*/checkpoints/step-*") if (match := re.search(r"step-(\d+)$", path.name))
    )
    if not found:
        notes.append(f"{trial.name}: no checkpoints there, so nothing about training steps")
    own = state_of(model)
    before = {name: tensor.clone() for name, tensor in own.items()}
    try:
        for step, folder in found:
            verify(folder)
            saved = load_tensors(folder / WEIGHTS)
            if any(name not in saved or saved[name].shape != tensor.shape for name, tensor in own.items()):
                notes.append(f"{folder}: holds another mixture than the model; left out")
                continue
            if any(name.startswith("backbone.") for name in saved):
                notes.append(f"step {step}: the backbone was trained, and here has its last weights")
            for name, tensor in own.items():
                tensor.copy_(saved[name])
            yield step
    finally:
        for name, tensor in own.items():
            tensor.copy_(before[name])
