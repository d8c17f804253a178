"""Which layers get experts, how many, of what rank (`LayerPlan`), and the operations on a whole model that has them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from twofold.core.layer import MixtureLinear
from twofold.core.routing import Bank, Roster, Router

BuildBank = Callable[[int, int, Mapping[str, int], Mapping[str, float], str], Bank]  # d_in, d_out, ranks, scales, layer name
BuildRouter = Callable[[int, str, Roster, Bank], Router]  # d_in, key, the experts that are there, the first layer's bank of this key


@dataclass(frozen=True)
class Expert:
    """One low-rank update of every target layer, multiplied by `scale`."""

    name: str
    rank: int
    alpha: float | None = None  # None: 2 · rank
    ranks: Mapping[str, int] = field(default_factory=dict)  # pattern over layer names → rank there (0: absent); the first match counts
    depths: tuple[int, ...] = ()  # rank in each of so many equal parts of the model's blocks, first to last, where no pattern matches

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_:-]{0,63}", self.name) or min(self.rank - 1, 0, *self.ranks.values(), *self.depths) < 0:
            what = f"expert {self.name!r} of rank {self.rank}, by layer {dict(self.ranks)}, by depth {list(self.depths)}"
            raise ValueError(f"{what}: a name is up to 64 of a-z, 0-9, _, - and :, a rank 1 or more, by layer and depth 0 or more")

    def rank_in(self, layer: str, depth: float = 0.0) -> int:
        """The expert's rank in `layer`, whose block lies at `depth`: 0 is the first, just below 1 the last."""
        usual = self.depths[int(depth * len(self.depths))] if self.depths else self.rank
        return next((rank for pattern, rank in self.ranks.items() if re.search(pattern, layer)), usual)

    @property
    def scale(self) -> float:
        """alpha / rank, as for LoRA; the same in every layer, also where the rank differs."""
        return 2.0 if self.alpha is None else self.alpha / self.rank


@dataclass(frozen=True)
class LayerPlan:
    """The shape of a mixture. An empty `experts` leaves the model as it is."""

    experts: tuple[Expert, ...] = ()
    sees: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # task, or TASK/SIDE (passes of its own) → its experts; default: all
    targets: str = ".*"  # regular expression over the names of the linear layers inside the model's repeated blocks
    bank: str = "lora"
    bank_options: Mapping[str, Any] = field(default_factory=dict)
    router: str = "uniform"
    router_options: Mapping[str, Any] = field(default_factory=dict)
    scope: str = "linear"  # where the routing is decided: in every "linear", once per "block", or once for the "model"

    def roster(self, tasks: tuple[str, ...], here: Collection[str] | None = None) -> Roster:
        """The plan's experts, or those of them that are `here`, and what each of `tasks` sees of them."""
        names = tuple(expert.name for expert in self.experts if here is None or expert.name in here)
        absent = {expert.name for expert in self.experts} - set(names)
        sees = dict.fromkeys(tasks, names) | {n: tuple(e) for n, e in self.sees.items() if n.partition("/")[0] in tasks}
        return Roster(names, {task: tuple(name for name in seen if name not in absent) for task, seen in sees.items()})


def block_of(layer: str) -> str | None:
    """The repeated block that a layer lies in: `encoder.layer.3.output.dense` → `encoder.layer.3`; None outside of blocks."""
    match = re.match(r"(.*?\.\d+|\d+)\.", layer)
    return match.group(1) if match else None


def target_layers(model: nn.Module, pattern: str) -> dict[str, nn.Module]:
    """The linear layers (what has in_features) inside the model's blocks whose name matches, in the model's order."""
    inside = {name: module for name, module in model.named_modules() if block_of(name) and hasattr(module, "in_features")}
    linears = {name: module for name, module in inside.items() if not any(module.children())}
    found = {name: module for name, module in linears.items() if re.search(pattern, name)}
    if not found:
        raise ValueError(f"no linear layer matches {pattern!r}; there are, for example, {sorted(linears)[:6]}")
    return found


def inject(model: nn.Module, plan: LayerPlan, tasks: tuple[str, ...], build_bank: BuildBank, build_router: BuildRouter) -> None:
    """Replaces every target layer of `model` by a `MixtureLinear` around it. Raises ValueError if there are already some.

    A router knows the experts of the layers that it decides for: one whose rank is 0 in all of them is not there.
    """
    if next(mixtures(model), None) is not None:
        raise ValueError("the model has mixture layers already")
    if plan.scope not in ("linear", "block", "model"):
        raise ValueError(f"scope {plan.scope!r}: use 'linear', 'block' or 'model'")
    targets = target_layers(model, plan.targets) if plan.experts else {}
    ranks = ranks_of(model, plan, targets)
    keys = {name: {"linear": name, "block": block_of(name) or name, "model": "model"}[plan.scope] for name in targets}
    scales = {expert.name: expert.scale for expert in plan.experts}
    routers: dict[str, Router] = {}
    for name, linear in targets.items():
        key, d_in, d_out = keys[name], int(linear.in_features), int(linear.out_features)  # type: ignore[arg-type]
        here = {expert for other in targets if keys[other] == key for expert, rank in ranks[other].items() if rank}
        roster = plan.roster(tasks, here)
        if not roster.experts:
            continue
        bank = build_bank(d_in, d_out, {e: ranks[name][e] for e in roster.experts}, {e: scales[e] for e in roster.experts}, name)
        router = routers.setdefault(key, routers.get(key) or build_router(d_in, key, roster, bank))
        model.set_submodule(name, MixtureLinear(linear, bank, router, roster, name, key))


def ranks_of(model: nn.Module, plan: LayerPlan, layers: Iterable[str]) -> dict[str, dict[str, int]]:
    """Layer → expert → its rank there. Depth counts all of the model's blocks, also those without a target."""
    blocks = list(dict.fromkeys(block_of(name) for name in target_layers(model, ".*"))) if layers else []
    depth = {name: blocks.index(block_of(name)) / len(blocks) for name in layers}
    return {name: {expert.name: expert.rank_in(name, depth[name]) for expert in plan.experts} for name in layers}


def mixtures(model: nn.Module) -> Iterator[MixtureLinear]:
    """The mixture layers of a model, in order."""
    return (module for module in model.modules() if isinstance(module, MixtureLinear))
