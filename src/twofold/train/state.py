"""What a checkpoint holds, and going on from it bit for bit: weights, optimiser, random states, counters, and what must not change."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from twofold.checkpoint import load_tensors, save_tensors
from twofold.errors import CheckpointError
from twofold.train.loop import LoopState

WEIGHTS, OPTIMISER, RANDOM, STATE = "weights.safetensors", "optimiser.safetensors", "random.safetensors", "state.json"
COMPANION = "companion.safetensors"
"""The tensors of the stage's companion, where it has any; they are read with `restore_weights`."""
Parameters = Mapping[str, nn.Parameter]


def write_state(
    folder: Path,
    weights: Mapping[str, Tensor],
    optimiser: Mapping[str, Tensor],
    state: LoopState,
    must_match: Mapping[str, Any],
    companion: Mapping[str, Tensor] = {},
) -> None:
    """Writes one generation's files into `folder`. `optimiser` is as `optimiser_tensors` gives it."""
    save_tensors(folder / WEIGHTS, weights)
    save_tensors(folder / OPTIMISER, optimiser)
    if companion:
        save_tensors(folder / COMPANION, companion)
    draws = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        draws |= {f"cuda{i}": own for i, own in enumerate(torch.cuda.get_rng_state_all())}
    save_tensors(folder / RANDOM, draws)
    plain = {"state": asdict(state), "must_match": dict(must_match), "python": _python_random(), "numpy": _numpy_random()}
    (folder / STATE).write_text(json.dumps(plain, indent=1), encoding="utf-8")


def read_state(folder: Path, weights: Mapping[str, Tensor], must_match: Mapping[str, Any]) -> LoopState:
    """Puts weights (into the tensors given) and random states back.

    Raises CheckpointError naming everything that differs from when the checkpoint was written.
    """
    plain = json.loads((folder / STATE).read_text(encoding="utf-8"))
    before = plain["must_match"]
    keys = dict.fromkeys([*before, *must_match])
    differing = [f"{key} was {before.get(key)!r} and is {must_match.get(key)!r}" for key in keys if before.get(key) != must_match.get(key)]
    if differing:
        raise CheckpointError(f"{folder}: cannot go on from here exactly: {'; '.join(differing)}")
    restore_weights(folder / WEIGHTS, weights)
    draws = load_tensors(folder / RANDOM)
    torch.set_rng_state(draws["torch"])
    for i in range(torch.cuda.device_count()):
        if f"cuda{i}" in draws:  # more devices may be seen now than when it was saved, or fewer
            torch.cuda.set_rng_state(draws[f"cuda{i}"], i)
    version, internal, gauss = plain["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys_624, *rest = plain["numpy"]
    np.random.set_state((kind, np.array(keys_624, dtype=np.uint32), *rest))
    return LoopState(**plain["state"])


def restore_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Copies saved tensors into those given. Raises CheckpointError where they are not the same ones, by name and shape."""
    saved = load_tensors(path)
    shapes, there = ({name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (weights, saved))
    if shapes != there:
        other = sorted(name for name in shapes.keys() | there.keys() if shapes.get(name) != there.get(name))
        raise CheckpointError(f"{path}: holds other weights than this model: {', '.join(other[:4])}{' …' * (len(other) > 4)}")
    with torch.no_grad():
        for name, tensor in weights.items():
            tensor.copy_(saved[name])


def optimiser_tensors(parameters: Parameters, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`PARAMETER/KEY` → the optimiser's tensors, by parameter name and not by position."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    return {f"{names[id(parameter)]}/{key}": value for parameter, slot in optimiser.state.items() for key, value in slot.items()}


def restore_optimiser(folder: Path, parameters: Parameters, optimiser: torch.optim.Optimizer) -> None:
    """The reverse of `optimiser_tensors`, from a generation's folder. Raises CheckpointError for a parameter that there is not."""
    for name, value in load_tensors(folder / OPTIMISER).items():
        parameter_name, _, key = name.rpartition("/")
        if parameter_name not in parameters:
            raise CheckpointError(f"{folder / OPTIMISER}: {parameter_name!r} is not trained here")
        parameter = parameters[parameter_name]
        optimiser.state[parameter][key] = value if key == "step" else value.to(parameter.device)  # AdamW counts on the CPU


def _python_random() -> list[Any]:
    version, internal, gauss = random.getstate()
    return [version, list(internal), gauss]


def _numpy_random() -> list[Any]:
    kind, keys, *rest = np.random.get_state(legacy=True)
    return [kind, np.asarray(keys).tolist(), *rest]
