"""The mixture's own parameters: their names, their groups, and how a saved set of them comes back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from twofold.core.inject import mixtures


def mixture_parameters(model: nn.Module) -> dict[str, tuple[str, nn.Parameter]]:
    """Parameter name → (group, parameter) for all that the mixture added, each once.

    The group is `expert:NAME` or `router`, and `bank` for what a bank's experts share: a parameter not named after one of them.
    """
    found: dict[str, tuple[str, nn.Parameter]] = {}
    shared: set[nn.Parameter] = set()
    for layer in mixtures(model):
        for name, parameter in layer.named_parameters(layer.layer):
            part = name.removeprefix(f"{layer.layer}.").partition(".")[0]
            if part != "linear" and parameter not in shared:
                shared.add(parameter)
                owner = name.rpartition(".")[2]
                own = f"expert:{owner}" if owner in layer.roster.experts else "bank"
                found[name] = (own if part == "bank" else "router", parameter)
    return found


@torch.no_grad()
def load_mixture(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copies a saved mixture into the model. Raises ValueError naming every parameter that is missing, unknown or of another shape."""
    own = {name: parameter for name, (_, parameter) in mixture_parameters(model).items()}
    shapes, saved = ({name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (own, state))
    wrong = [f"missing {name}" for name in shapes.keys() - saved.keys()] + [f"unknown {name}" for name in saved.keys() - shapes.keys()]
    wrong += [f"{name} is {saved[name]}, not {shape}" for name, shape in shapes.items() if saved.get(name, shape) != shape]
    if wrong:
        rest = f" and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise ValueError(f"the saved mixture does not fit this model: {'; '.join(sorted(wrong)[:8])}{rest}")
    for name, parameter in own.items():
        parameter.copy_(state[name])
