"""What runs a model's short queries: PyTorch, as everything else, or a compiled graph of their pass (`backbone.graph`)."""

from __future__ import annotations

import torch

from twofold.backbone import graph
from twofold.errors import ConfigError
from twofold.model.unified import UnifiedModel
from twofold.tasks import kind_of
from twofold.tasks.retrieve import RetrieveTask

TORCH, OPENVINO, AUTO = "torch", "openvino", "auto"
ENGINES = (TORCH, OPENVINO, AUTO)
LARGE = 100_000_000
"""Parameters from which "auto" leaves a model alone: its products take the time, and a graph would take its memory once more."""


def check_engine(engine: str, device: str | torch.device = "cpu") -> None:
    """Raises ConfigError for an engine that does not exist, is not installed, or does not run on this device."""
    if engine not in ENGINES:
        raise ConfigError(f"engine {engine!r}: use {', '.join(ENGINES)}")
    if engine == OPENVINO:
        graph.require()
        if torch.device(device).type != "cpu":
            raise ConfigError(f"engine openvino on {device}: its graphs are for the CPU")


def use_engine(model: UnifiedModel, engine: str) -> None:
    """Gives the model a graph for single short queries: with "openvino" where it can be exported; with "auto" where it is also 1.2 times
    faster here, which is tried (seconds), and where OpenVINO is installed. Nothing else changes, nor what the model gives.

    Queries are texts with the query prompt, of the task `retrieve`. For another task's passes: `backbone.graph.export`.
    """
    if engine == AUTO and not (graph.available() and model.backbone.device.type == "cpu" and _size(model) < LARGE):
        return
    if engine != TORCH and (task := query_pass(model)) is not None:
        graph.export(model.backbone, task, graph.GAIN if engine == AUTO else 0.0)


def query_pass(model: UnifiedModel) -> str | None:
    """The name by which experts know the passes of queries; None where the model embeds none, or where each query has another."""
    task = next((task for name, task in model.tasks.items() if name == kind_of(name) == "retrieve"), None)
    if not isinstance(task, RetrieveTask):
        return None
    passes = task.passes(model.encoder, model.tokens.texts(["a query"], "query"), "query", model.token_budget)
    return passes if isinstance(passes, str) else None


def _size(model: UnifiedModel) -> int:
    return sum(parameter.numel() for parameter in model.backbone.parameters())
