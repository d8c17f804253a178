"""Looking at a model's layers while passes go through it, and at an expert's two matrices.

Shapes: as in `twofold.core.routing`; S inputs of a pass, in the caller's order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from twofold.backbone.packed import split
from twofold.banks._stacked import StackedBank
from twofold.core.inject import block_of, mixtures
from twofold.core.layer import MixtureLinear
from twofold.core.routing import Batch, Routing, current
from twofold.errors import ConfigError
from twofold.model.system import System
from twofold.model.unified import TOKEN_BUDGET, UnifiedModel
from twofold.probes import Progress, quiet
from twofold.probes._material import Pass

Look = Callable[[MixtureLinear, Tensor, Tensor], Mapping[str, Tensor]]
"""(layer, its input (1, T, D), its output) → name → (S, …), a row for each segment of the chunk."""
Seen = dict[str, dict[str, NDArray[np.float32]]]
"""Layer → name → (S, …)."""
SMALL = 1e-6


class Factors(NamedTuple):
    """One expert's update ΔW = B A of one layer, scale included, fp32."""

    a_RD: Tensor
    b_DR: Tensor


def layers_of(model: UnifiedModel) -> list[MixtureLinear]:
    """The model's mixture layers, in order."""
    return list(mixtures(model.backbone.model))


def experts_of(model: UnifiedModel) -> tuple[str, ...]:
    """All experts of the model."""
    return tuple(expert.name for expert in model.spec.plan.experts)


def block_name(layer: str) -> str:
    """The block of a layer: `encoder.layer.3.output.dense` → `encoder.layer.3`."""
    return block_of(layer) or layer


def module_name(layer: str) -> str:
    """What a layer is inside its block: `encoder.layer.3.output.dense` → `output.dense`."""
    return layer.removeprefix(f"{block_name(layer)}.")


@torch.no_grad()
def factors(layer: MixtureLinear, expert: str) -> Factors:
    """The expert's matrices; for a bank that does not stack them, those of the singular value decomposition of its update."""
    bank, one = layer.bank, torch.ones(1, device=next(layer.parameters()).device)
    if isinstance(bank, StackedBank):
        a_RD, b_DR = bank.stack((expert,))
        return Factors(a_RD.detach().float(), (b_DR * bank.per_rank(one, (expert,))).detach().float())
    u, value, v = torch.linalg.svd(bank.delta(one, (expert,)).float(), full_matrices=False)
    rank = int((value > SMALL * value.max().clamp_min(SMALL)).sum())
    return Factors(v[:rank], u[:, :rank] * value[:rank])


@torch.inference_mode()
def observe(one: Pass, look: Look, names: str | Sequence[str] | None = None, progress: Progress = quiet, what: str = "") -> Seen:
    """What `look` says of every layer, for all inputs of a pass; `names`: as another task's passes, () as the bare backbone's."""
    found: Seen = {}

    def hook(at: Sequence[int], layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, MixtureLinear)
        if not _whole_pass(given[0], current()):
            return
        for name, value_S in look(layer, given[0], output).items():
            array = value_S.float().cpu().numpy()
            rows = found.setdefault(layer.layer, {}).setdefault(name, np.zeros((one.size, *array.shape[1:]), dtype=np.float32))
            rows[list(at)] = array

    done = 0
    for chunk, at in split(one.pack, TOKEN_BUDGET):
        with ExitStack() as hooks:
            for layer in layers_of(one.model):
                hooks.callback(layer.register_forward_hook(partial(hook, at)).remove)
            one.model.backbone(chunk, _names(one.names if names is None else names, at))
        done += len(at)
        progress(what or f"{one.dataset} {one.task} {one.side}", done, one.size)
    return found


class Weights(NamedTuple):
    """One layer's routing of all inputs of a pass."""

    weight_SE: NDArray[np.float64]
    """Mean over the tokens of each input, made to sum to 1, over all experts of the model; 0 for those that are not seen."""
    token_entropy_S: NDArray[np.float64]
    """The mean over an input's tokens of the entropy of their weights, in nats; the input's own where it has one decision."""
    token_TE: NDArray[np.float64] | None
    """The weights of single tokens, where they were decided for tokens, and …"""
    owner_T: NDArray[np.int64] | None
    """… the input of each."""


@torch.inference_mode()
def routing_of(one: Pass, progress: Progress = quiet) -> dict[str, Weights]:
    """Layer → how its router weighed the experts for all inputs of a pass."""
    experts = experts_of(one.model)
    parts: dict[str, list[Any]] = {}
    done = 0
    for chunk, at in split(one.pack, TOKEN_BUDGET):
        _, routings = one.model.backbone(chunk, _names(one.names, at))
        for layer, routing in routings.items():
            parts.setdefault(layer, []).append(_rows(routing, chunk.lengths, at, experts))
        done += len(at)
        progress(f"{one.dataset} {one.task} {one.side}", done, one.size)
    return {layer: _together(rows, one.size, len(experts)) for layer, rows in parts.items()}


def _rows(routing: Routing, lengths: Sequence[int], at: Sequence[int], experts: Sequence[str]) -> tuple[Any, Any, Any]:
    """(inputs' places, segment of each decision, its weights over all experts that sum to 1) of one chunk."""
    own = routing.weight.float().cpu().numpy().astype(np.float64)
    own = own[0] if routing.level == "token" else np.repeat(own, len(at), 0) if len(own) == 1 else own
    segment = np.repeat(np.array(at), lengths) if routing.level == "token" else np.array(at)
    weight = np.zeros((len(own), len(experts)))
    weight[:, [experts.index(name) for name in routing.experts]] = own
    total = weight.sum(-1, keepdims=True)
    return routing.level, segment, np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)


def _together(rows: list[tuple[Any, Any, Any]], size: int, experts: int) -> Weights:
    level, owner, weight = rows[0][0], np.concatenate([row[1] for row in rows]), np.concatenate([row[2] for row in rows])
    count = np.bincount(owner, minlength=size).clip(1)
    mean = np.stack([np.bincount(owner, weight[:, e], size) / count for e in range(experts)], -1)
    log = np.log(np.where(weight > 0, weight, 1.0))
    spread = np.bincount(owner, -(weight * log).sum(-1), size) / count
    return Weights(mean, spread, weight, owner) if level == "token" else Weights(mean, spread, None, None)


def pooled(x: Tensor) -> Tensor:
    """(S, D): the mean over the tokens of each segment of the pass that runs."""
    return current().pool(x.float())


def _names(names: str | Sequence[str], at: Sequence[int]) -> str | list[str]:
    return names if isinstance(names, str) else [names[i] for i in at] if names else []


def _whole_pass(x: Tensor, batch: Batch) -> bool:
    """Whether this is the pass's own stream: a table of relative positions goes through a layer too."""
    return x.ndim == 3 and (x.shape[1] == sum(batch.lengths) if batch.mask_SL is None else x.shape[:2] == batch.mask_SL.shape)


def one_mixture(system: System, probe: str) -> UnifiedModel:
    """The system's only model. Raises ConfigError for two specialists, and for a model without experts."""
    model = system.embedder
    if len(system.models) > 1:
        raise ConfigError(f"{probe}: two specialists share no experts; give the folder of one of them, or a unified model")
    if not experts_of(model):
        raise ConfigError(f"{probe}: the model has no experts to look at; it was made by a method without any")
    return model
