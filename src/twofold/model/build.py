"""From a spec to a model: backbone, experts, heads, all started from the spec's seed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from twofold import plugins
from twofold.backbone.backbone import Backbone
from twofold.backbone.load import head_rows, load_model
from twofold.backbone.tokens import TextTokens, token_of
from twofold.core.inject import inject
from twofold.core.routing import Bank, Roster, Router
from twofold.model.spec import ModelSpec
from twofold.model.unified import UnifiedModel
from twofold.tasks import HeadOf, build_task


def build_model(spec: ModelSpec, device: str | torch.device = "cpu") -> UnifiedModel:
    """A fresh model: the backbone's weights, new experts, routers and heads. Raises ConfigError for what does not exist."""
    model, tokenizer = load_model(spec.backbone, spec.precision)

    def head_of(words: Sequence[str]) -> Tensor:
        return head_rows(spec.backbone, model, [token_of(tokenizer, word) for word in words])

    return assemble(spec, model.to(device), tokenizer, head_of)


def assemble(spec: ModelSpec, model: nn.Module, tokenizer: Any, head_of: HeadOf | None = None) -> UnifiedModel:
    """Puts experts, routers and heads on a loaded backbone, which is frozen.

    `head_of` gives the rows (N, D) of the language model's head for some words, from which a task's head may start; without it,
    as for a saved model whose heads are loaded, such a head starts at zero.
    """
    model.requires_grad_(False)
    backbone = Backbone(  # before injection: it proves packing on the bare model
        model, pooling=spec.pooling, attention=spec.attention, precision=spec.precision, both_ways=spec.both_ways
    )
    limit = backbone.position_limit
    tokens = TextTokens(
        tokenizer,
        max_length=min(spec.max_length, limit),
        pair_length=min(spec.pair_length, limit),
        query_length=spec.query_length,
        prompts=spec.prompts,
    )
    tasks = {}
    for name, options in spec.tasks.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(f"{spec.seed}/{name}".encode()))
            tasks[name] = build_task(name, options, backbone.width, head_of).to(backbone.device)
    put_mixture(model, spec, backbone.device)
    return UnifiedModel(spec, backbone, tokens, tasks)


def put_mixture(model: nn.Module, spec: ModelSpec, device: torch.device, kept: Mapping[str, Bank] = {}) -> None:
    """Puts the experts and routers of the spec's plan beside the layers of `model`. `kept`: layer → the bank that it has already."""
    names = tuple(spec.tasks)

    def bank(d_in: int, d_out: int, ranks: Mapping[str, int], scales: Mapping[str, float], layer: str) -> Bank:
        if layer in kept:
            return kept[layer]
        built: Bank = plugins.build_plugin(
            "banks", spec.plan.bank, spec.plan.bank_options, d_in=d_in, d_out=d_out, ranks=ranks, scales=scales, layer=layer, seed=spec.seed
        )
        return built.to(device)

    def router(d_in: int, key: str, roster: Roster, bank: Bank) -> Router:
        built: Router = plugins.build_plugin(
            "routers", spec.plan.router, spec.plan.router_options, d_in=d_in, roster=roster, tasks=names, seed=spec.seed, key=key, bank=bank
        )
        return built.to(device)

    inject(model, spec.plan, names, bank, router)
