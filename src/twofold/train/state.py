"""What a checkpoint holds, and going on from it bit for bit: weights, optimiser, random states, counters, and what must not change."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from twofold.checkpoint import Generations, load_tensors, save_tensors
from twofold.errors import CheckpointError
from twofold.train.loop import LoopState


def write_state(folder: Path, parameters: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer, state: LoopState, must_match: dict[str, Any]) -> None:
    """Writes one generation's files into `folder`: weights.safetensors, optimiser.safetensors, random.safetensors, state.json."""
    save_tensors(folder / "weights.safetensors", {name: parameter.detach() for name, parameter in parameters.items()})
    save_tensors(folder / "optimiser.safetensors", optimiser_tensors(parameters, optimiser) or {"empty": torch.zeros(1)})
    draws = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        draws |= {f"cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    save_tensors(folder / "random.safetensors", draws)
    plain = {"state": asdict(state), "must_match": must_match, "python": _python_random(), "numpy": _numpy_random()}
    (folder / "state.json").write_text(json.dumps(plain, indent=1))


def read_state(folder: Path, parameters: dict[str, nn.Parameter], must_match: dict[str, Any]) -> LoopState:
    """Puts weights and random states back. Raises CheckpointError naming everything that differs from when it was written."""
    plain = json.loads((folder / "state.json").read_text())
    before = plain["must_match"]
    differing = [f"{key} was {before.get(key)!r} and is {value!r}" for key, value in must_match.items() if before.get(key) != value]
    if differing:
        raise CheckpointError(f"{folder}: cannot go on from here exactly: {'; '.join(differing)}")
    weights = load_tensors(folder / "weights.safetensors")
    if weights.keys() != parameters.keys():
        raise CheckpointError(f"{folder / 'weights.safetensors'}: holds other parameters: {sorted(weights.keys() ^ parameters.keys())[:4]}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    draws = load_tensors(folder / "random.safetensors")
    torch.set_rng_state(draws["torch"])
    if torch.cuda.is_available() and "cuda0" in draws:
        torch.cuda.set_rng_state_all([draws[f"cuda{i}"] for i in range(torch.cuda.device_count())])
    version, internal, gauss = plain["python"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state((plain["numpy"][0], np.array(plain["numpy"][1], dtype=np.uint32), *plain["numpy"][2:]))
    return LoopState(**plain["state"])


def optimiser_tensors(parameters: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`PARAMETER/KEY` → the optimiser's tensors, by parameter name and not by position."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    return {f"{names[id(parameter)]}/{key}": value for parameter, slot in optimiser.state.items() for key, value in slot.items()}


def restore_optimiser(folder: Path, parameters: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer) -> None:
    """The reverse of `optimiser_tensors`, from a generation's folder."""
    for name, value in load_tensors(folder / "optimiser.safetensors").items():
        parameter_name, _, key = name.rpartition("/")
        if parameter_name in parameters:
            parameter = parameters[parameter_name]
            optimiser.state[parameter][key] = value if key == "step" else value.to(parameter.device)


def latest(folder: Path, keep: int) -> tuple[Generations, Path | None]:
    """The generations of a trial and the folder of the newest complete one."""
    generations = Generations(folder, keep)
    newest = generations.latest() if folder.is_dir() else None
    return generations, None if newest is None else newest.folder


def _python_random() -> list[Any]:
    version, internal, gauss = random.getstate()
    return [version, list(internal), gauss]


def _numpy_random() -> list[Any]:
    kind, keys, *rest = np.random.get_state(legacy=True)
    return [kind, np.asarray(keys).tolist(), *rest]
