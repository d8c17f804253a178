"""A task's constant routing added to the weights of a whole model, and taken out again."""

from __future__ import annotations

from torch import nn

from twofold.core.inject import mixtures


def fold(model: nn.Module, task: str) -> None:
    """Merges the task's constant routing into the weights of every layer; all or none. See `MixtureLinear.fold`."""
    try:
        for layer in mixtures(model):
            layer.fold(task)
    except (KeyError, ValueError):
        unfold(model)
        raise


def unfold(model: nn.Module) -> None:
    """Takes every folded update out again, bit for bit."""
    for layer in mixtures(model):
        layer.unfold()
