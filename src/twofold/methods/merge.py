"""Trained specialists merged into one LoRA, without training: `cat` (the exact sum), `svd`, `ties`, `dare`.

`start` is a model whose experts were trained apart, such as `hard_lora`'s; every task uses the merged expert. PEFT's
`add_weighted_adapter` does the same, and a test compares. It is the updates B_e A_e that are merged, and their merge is cut to
`rank` by its singular values; not the factors one by one (PEFT's kinds without "_svd"), whose product has cross terms that are
nobody's. Sources: TIES, Yadav et al. 2023, arXiv 2306.01708; DARE, Yu et al. 2024, arXiv 2311.03099, which merge whole weights
and cut nothing: a sparse matrix is not of low rank, so the cut costs `dare` much.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twofold.banks.lora import LoraBank
from twofold.core.inject import Expert, LayerPlan, mixtures
from twofold.core.layer import MixtureLinear
from twofold.core.routing import generator
from twofold.errors import ConfigError
from twofold.methods import Batches, Member, Method
from twofold.model.replan import replan
from twofold.model.unified import UnifiedModel

NEEDS_START = "hard_lora"
MERGED = "merged"


def build(*, tasks: tuple[str, ...], kind: str = "cat", rank: int = 24, weight: float = 1.0, density: float = 0.2, seed: int = 0) -> Method:
    """`kind` cat, svd, ties or dare; `rank` of the merged expert (cat: the sum of all ranks); `weight` of every expert in the
    merge; `density`: the share of each update that ties (the largest) and dare (drawn by `seed`) keep."""
    if kind not in ("cat", "svd", "ties", "dare") or rank < 1 or not 0 < density <= 1:
        raise ValueError(f"merge: kind {kind!r} of rank {rank}, density {density}; use cat, svd, ties or dare, 1 or more, above 0 to 1")

    def change(model: UnifiedModel, batches: Batches) -> None:  # noqa: ARG001
        if not model.spec.plan.experts:
            raise ConfigError("merge: the model to start from has no experts: start from one of 'hard_lora', say")
        found = {}
        for layer in mixtures(model):
            draw = generator(seed, "dare", layer.layer)
            found[layer.layer] = factors(layer, weight) if kind == "cat" else cut(merged(updates(layer), kind, weight, density, draw), rank)
        whole = max(len(a_RD) for a_RD, _ in found.values())
        replan(model, LayerPlan((Expert(MERGED, whole, whole),), targets=model.spec.plan.targets))
        for layer in mixtures(model):
            put(layer, *found[layer.layer])

    return Method("merge", (Member("unified", tasks, (), before=change),))


@torch.no_grad()
def updates(layer: MixtureLinear) -> list[Tensor]:
    """ΔW (d_out, d_in) of each expert of a layer, its scale included."""
    one = next(layer.bank.parameters()).new_ones(1)
    return [layer.bank.delta(one, (name,)).float() for name in layer.roster.experts]


def merged(updates: list[Tensor], kind: str, weight: float, density: float, draw: torch.Generator) -> Tensor:
    """One matrix of several, as the kind says.

    svd: their weighted sum. dare: the same of what is left of each after dropping elements at random and scaling up the rest.
    ties: of each only its largest elements; for every element the sign of their sum; the mean of those that have that sign.
    """
    if kind == "svd":
        return weight * torch.stack(updates).sum(0)
    if kind == "dare":
        kept = [torch.bernoulli(torch.full(each.shape, density), generator=draw).to(each.device) for each in updates]
        return weight * torch.stack([each * keep / density for each, keep in zip(updates, kept, strict=True)]).sum(0)
    trimmed = []
    for each in updates:
        largest = each.abs().flatten().topk(int(density * each.numel())).indices
        trimmed.append(torch.zeros_like(each).flatten().scatter(0, largest, each.flatten()[largest]).view_as(each))
    stack = torch.stack(trimmed)
    agrees = stack.sign() == torch.where(stack.sum(0) >= 0, 1.0, -1.0)
    return weight * (stack * agrees).sum(0) / agrees.sum(0).clamp_min(1)


def cut(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A (R, d_in) and B (d_out, R) of the nearest matrix of `rank`."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return v[:rank], u[:, :rank] * s[:rank]


@torch.no_grad()
def factors(layer: MixtureLinear, weight: float) -> tuple[Tensor, Tensor]:
    """A (R, d_in) and B (d_out, R) of all experts of a layer side by side, read off the bank by giving it unit vectors."""
    bank, experts, some = layer.bank, layer.roster.experts, next(layer.bank.parameters())
    d_in, d_out = int(layer.linear.in_features), int(layer.linear.out_features)  # type: ignore[arg-type]
    a_DR = bank.down(torch.eye(d_in, dtype=some.dtype, device=some.device), experts)
    unit_RR = torch.eye(a_DR.shape[1], dtype=some.dtype, device=some.device)
    b_RO = bank.up(unit_RR.new_zeros(len(unit_RR), d_out), unit_RR, some.new_full((1, len(experts)), weight), experts)
    return a_DR.T, b_RO.T


@torch.no_grad()
def put(layer: MixtureLinear, a_RD: Tensor, b_OR: Tensor) -> None:
    """Makes them the merged expert of the layer; ranks that are left over stay zero."""
    assert isinstance(layer.bank, LoraBank)
    a, b, rank = layer.bank.a[MERGED], layer.bank.b[MERGED], len(a_RD)
    a.zero_()[:rank] = a_RD.to(a.dtype)
    b.zero_()[:, :rank] = b_OR.to(b.dtype)
