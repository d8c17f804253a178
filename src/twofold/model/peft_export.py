"""Plain PEFT adapters, one per task, for tools that know LoRA and no mixtures.

Per layer, the experts that a task sees become one LoRA: their A's stacked, their B's side by side, each times its weight and
scale (PEFT's alpha is set to the rank, so that its own scale is 1). That is exact where the routing is constant per task;
where it depends on the input, the mean weight over sample texts stands for it, and the difference that this makes is measured.
Shapes: R = ΣR_e ranks of the experts that a task sees, E experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twofold.checkpoint import save_tensors, write_folder
from twofold.core.inject import mixtures
from twofold.core.layer import MixtureLinear
from twofold.core.routing import Batch, Router
from twofold.model.unified import UnifiedModel
from twofold.model.views import readable, write_json

Pair = tuple[str, str]


@dataclass(frozen=True)
class Export:
    """One adapter that was written."""

    folder: Path
    constant: bool
    """Whether the task's routing is constant in every layer, so that the adapter is the model."""
    difference: float | None
    """Largest absolute difference over the samples between the model and the adapter: of a vector's feature (retrieve), of a raw
    score (rerank). None where there were no samples."""


class ConstantRouter(Router):
    """The same weights for every input."""

    def __init__(self, weight_E: Tensor) -> None:
        super().__init__()
        self.weight_E = weight_E

    def forward(self, x: Tensor, z: Tensor, batch: Batch, experts: tuple[str, ...]) -> tuple[Tensor, str]:  # noqa: ARG002
        return self.weight_E[None].to(x.device), "task"

    def constant(self, task: str, experts: tuple[str, ...]) -> Tensor:  # noqa: ARG002
        return self.weight_E


def export(
    model: UnifiedModel, path: str | Path, *, texts: Sequence[str] = (), pairs: Sequence[Pair] = (), overwrite: bool = False
) -> dict[str, Export]:
    """Writes `path/TASK` for every task: `PeftModel.from_pretrained(backbone, path/TASK)` then gives that task's hidden states.

    It is `path/TASK/SIDE` where queries and documents are passes of their own. `texts` are samples for retrieve, `pairs` for rerank.
    The heads are not part of an adapter: pooling, and for a pair the score of its two parts, stay with the caller. Raises
    ValueError where there are no experts, where the routing depends on the input and there are no samples of the task, and
    CheckpointError as `write_folder` does.
    """
    layers = {layer.layer: layer for layer in mixtures(model.backbone.model)}
    if not layers:
        raise ValueError("the model has no experts to export: its backbone is all there is")
    samples: Mapping[str, Sequence[Any]] = {"retrieve": texts, "rerank": pairs}
    plans: dict[str, tuple[dict[str, Tensor], bool, float | None]] = {}
    for task in passes_of(model):
        weights, constant = weights_of(model, task, samples.get(task, ()))
        plans[task] = weights, constant, measured(model, task, weights, samples.get(task, ()))
    base = model.spec.backbone

    def write(folder: Path) -> None:
        for task, (weights, _, _) in plans.items():
            (folder / task).mkdir(parents=True)
            tensors, ranks = adapter(layers, task, weights)
            save_tensors(folder / task / "adapter_model.safetensors", tensors)
            write_json(folder / task / "adapter_config.json", adapter_config(base, ranks))
        readable(folder)

    write_folder(Path(path), write, overwrite=overwrite)
    return {task: Export(Path(path) / task, constant, difference) for task, (_, constant, difference) in plans.items()}


def passes_of(model: UnifiedModel) -> list[str]:
    """The tasks, each replaced by its sides where it has some."""
    known = next(mixtures(model.backbone.model)).roster.sees
    sides = {task: [name for name in known if name.startswith(f"{task}/")] for task in model.tasks}
    return [name for task, own in sides.items() for name in own or [task]]


def weights_of(model: UnifiedModel, task: str, samples: Sequence[Any]) -> tuple[dict[str, Tensor], bool]:
    """Layer → (E,) weights of the experts that the task sees: constant ones, else their mean; and whether all are constant."""
    found: dict[str, Tensor] = {}
    open_layers: list[str] = []
    for layer in mixtures(model.backbone.model):
        experts = layer.roster.visible((task,))
        if not experts:
            continue
        weight_E = layer.router.constant(task, experts)
        if weight_E is None:
            open_layers.append(layer.layer)
        else:
            found[layer.layer] = weight_E.detach().float().cpu()
    if open_layers:
        if not samples:
            kind = "pairs" if task == "rerank" else "texts"
            raise ValueError(f"the routing of {task!r} depends on the input: give sample {kind} to take the mean over")
        found |= dict.fromkeys(open_layers, torch.zeros(()))
        for sample in samples:  # one by one: no padding among the tokens
            routings = model.routings(pairs=[sample]) if task == "rerank" else model.routings(texts=[sample])
            found |= {name: found[name] + routings[name].weight.float().flatten(0, -2).mean(0).cpu() / len(samples) for name in open_layers}
    return found, not open_layers


def measured(model: UnifiedModel, task: str, weights: Mapping[str, Tensor], samples: Sequence[Any]) -> float | None:
    """The largest difference over the samples between the model and the model with these constant weights."""
    if not samples or task not in ("retrieve", "rerank"):
        return None

    def run() -> np.ndarray[Any, Any]:
        return model.score(samples) if task == "rerank" else model.encode(samples)

    before = run()
    with _routed(model, weights):
        return float(np.abs(run() - before).max())


@torch.no_grad()
def adapter(layers: Mapping[str, MixtureLinear], task: str, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """PEFT's tensors, and layer → rank. A and B are read off the bank by giving it unit vectors, so every bank exports."""
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for name, layer in layers.items():
        experts = layer.roster.visible((task,))
        if name not in weights:
            continue
        some = next(layer.bank.parameters())
        d_in, d_out = int(layer.linear.in_features), int(layer.linear.out_features)  # type: ignore[arg-type]
        a_DR = layer.bank.down(torch.eye(d_in, dtype=some.dtype, device=some.device), experts)
        rank = a_DR.shape[1]
        if not rank:
            continue
        unit_RR = torch.eye(rank, dtype=some.dtype, device=some.device)
        b_RD = layer.bank.up(unit_RR.new_zeros(rank, d_out), unit_RR, weights[name][None].to(some.device), experts)
        ranks[name] = rank
        tensors[f"base_model.model.{name}.lora_A.weight"] = a_DR.T.contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b_RD.T.contiguous()
    return tensors, ranks


def adapter_config(base: str, ranks: Mapping[str, int]) -> dict[str, Any]:
    """PEFT's adapter_config.json. Ranks that differ from the most common one stand in its patterns."""
    counts = list(ranks.values())
    usual = max(set(counts), key=counts.count)
    others = {name: rank for name, rank in ranks.items() if rank != usual}
    return {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": base,
        "r": usual,
        "lora_alpha": usual,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": list(ranks),
        "bias": "none",
        "lora_dropout": 0.0,
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


@contextmanager
def _routed(model: UnifiedModel, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Constant weights instead of the routers for a while. Not for a model that other threads use."""
    layers = [layer for layer in mixtures(model.backbone.model) if layer.layer in weights]
    kept = [layer.router for layer in layers]
    try:
        for layer in layers:
            layer.router = ConstantRouter(weights[layer.layer])
        yield
    finally:
        for layer, router in zip(layers, kept, strict=True):
            layer.router = router
