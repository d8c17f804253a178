"""What the mixture costs at the sizes that people serve on a GPU: Qwen3's shapes of 0.6B, 4B and 8B with random weights, in bf16.

    python -m bench.gpu.shapes --to results/bench/gpu-shapes.json
    python -m bench.gpu.shapes --dry-run

Four experts of rank 8 in every linear layer: "mixture" with a soft router per layer, its experts in bf16 like the backbone ("experts in
fp32" as they are trained), "block" with one router per transformer block, "folded" with a constant routing merged into the weights; against
the same packed backbone without experts, and against plain transformers with padding. "bulk" is a batch of random tokens with the
lengths of real text (log-normal, median 96 tokens, at most 512), "query" one text of 16 tokens. Wall time around a synchronised pass,
variants taking turns. Also: share of the card's own matrix product rate, peak memory, and the weights of one model with experts over two
models.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModel, Qwen3Config

from bench import _measure
from bench._measure import Times, rounded
from twofold import plugins
from twofold.backbone.backbone import Backbone
from twofold.backbone.packed import Pack, make_pack
from twofold.core.inject import Expert, LayerPlan, inject
from twofold.core.routing import Bank, Roster, Router
from twofold.model.folding import fold

SHARED = {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 32768}
SHAPES: dict[str, dict[str, int]] = {
    "0.6B": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16, **SHARED},
    "4B": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32, **SHARED},
    "8B": {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32, **SHARED},
}
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY |= {"num_key_value_heads": 2, "head_dim": 8, "vocab_size": 200}
EXPERTS = tuple(Expert(f"expert_{i}", 8) for i in range(4))
PLANS = {
    "bare": LayerPlan(),
    "mixture": LayerPlan(EXPERTS, router="soft"),
    "mixture, experts in fp32": LayerPlan(EXPERTS, router="soft"),
    "mixture, router per block": LayerPlan(EXPERTS, router="soft", scope="block"),
    "folded": LayerPlan(EXPERTS, router="task_gate"),
}


def model_of(shape: Mapping[str, int], device: str) -> nn.Module:
    """A random Qwen3 in bf16, drawn on the device; the same weights every time."""
    torch.manual_seed(0)
    with torch.device("meta"):
        model: Any = AutoModel.from_config(Qwen3Config(**shape), dtype=torch.bfloat16)
    model.to_empty(device=device)
    with torch.device(device):
        model.rotary_emb = type(model.rotary_emb)(model.config)  # its frequencies are no weights
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0) if parameter.dim() == 1 else parameter.normal_(std=0.02)
    return cast(nn.Module, model.eval().requires_grad_(False))


def with_experts(model: nn.Module, plan: LayerPlan, device: str, dtype: torch.dtype) -> Backbone:
    """The packed backbone around it, with the plan's experts, their B not zero."""
    backbone = Backbone(model, pooling="last", precision="bf16-weights")

    def bank(d_in: int, d_out: int, ranks: Mapping[str, int], scales: Mapping[str, float], layer: str) -> Bank:
        built: Bank = plugins.build_plugin("banks", plan.bank, {}, d_in=d_in, d_out=d_out, ranks=ranks, scales=scales, layer=layer, seed=0)
        for name, parameter in built.named_parameters():
            if name.startswith("b."):
                nn.init.normal_(parameter, std=0.01)
        return built.to(device, dtype)

    def router(d_in: int, key: str, roster: Roster, bank: Bank) -> Router:
        given = {"d_in": d_in, "roster": roster, "tasks": ("retrieve",), "seed": 0, "key": key, "bank": bank}
        built: Router = plugins.build_plugin("routers", plan.router, plan.router_options, **given)
        return built.to(device)

    inject(model, plan, ("retrieve",), bank, router)
    model.requires_grad_(False).eval()
    if plan.router == "task_gate" and plan.experts:
        fold(model, "retrieve")
    return backbone


def packs(vocabulary: int, tokens: int) -> dict[str, Pack]:
    """Of kind "bulk": random texts with real lengths up to about `tokens` in all; "query": one of 16 tokens."""
    draw = torch.Generator().manual_seed(0)
    lengths = [int(length) for length in (torch.randn(4096, generator=draw) * 0.85).exp().mul(96).clamp(4, min(512, tokens // 4))]
    total = torch.tensor(lengths).cumsum(0)
    chosen = lengths[: max(1, int((total <= tokens).sum()))]

    def pack(sizes: Sequence[int]) -> Pack:
        return make_pack([(torch.randint(5, vocabulary - 1, (n,), generator=draw).tolist(), [0] * n, [1] * n) for n in sizes])

    return {"bulk": pack(chosen), "query": pack([16])}


def synchronise(device: str) -> None:
    """Waits until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def timed(call: Callable[[], object], device: str, repeats: int) -> float:
    """Wall seconds of one call, by `repeats` of them."""
    synchronise(device)
    begun = time.perf_counter()
    for _ in range(repeats):
        call()
    synchronise(device)
    return (time.perf_counter() - begun) / repeats


def passes(backbone: Backbone, pack: Pack) -> Callable[[], Tensor]:
    """Ours: the pooled vectors of a pack."""
    pack = pack.to(str(backbone.device))

    @torch.inference_mode()
    def call() -> Tensor:
        return backbone.pool(backbone(pack, "retrieve")[0], pack)

    return call


def padded(model: Any, pack: Pack, device: str) -> Callable[[], Tensor]:
    """Plain transformers: the same texts as a padded batch with its mask."""
    rows = torch.split(pack.input_ids_T, list(pack.lengths))
    ids_SL = nn.utils.rnn.pad_sequence(list(rows), batch_first=True).to(device)
    mask_SL = (torch.arange(ids_SL.shape[1])[None] < torch.tensor(pack.lengths)[:, None]).long().to(device)

    @torch.inference_mode()
    def call() -> Tensor:
        return model(input_ids=ids_SL, attention_mask=mask_SL, use_cache=False).last_hidden_state

    return call


def matrix_rate(device: str, size: int) -> float:
    """bf16 FLOP/s of one square product on random numbers."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    a @ b
    return 2 * size**3 / min(timed(lambda: a @ b, device, 5) for _ in range(5))


class Shape:
    """One shape's measurement. Variants live one at a time beside the bare model, so that 8B fits a card of 80 GB."""

    def __init__(self, name: str, shape: Mapping[str, int], device: str, rounds: int, tokens: int) -> None:
        self.name, self.shape, self.device, self.rounds = name, shape, device, rounds
        self.jobs = packs(shape["vocab_size"], tokens)
        self.bare = with_experts(model_of(shape, device), PLANS["bare"], device, torch.bfloat16)
        self.weights = megabytes(self.bare.model)
        self.ratios: dict[str, Any] = {}
        self.seconds: dict[str, Any] = {}
        bulk = self.jobs["bulk"]
        attention = "packed" if self.bare.packed else f"padded: {self.bare.why_padded}"
        self.figures: dict[str, Any] = {"attention": attention, "tokens": bulk.tokens, "texts": len(bulk.lengths)}

    def measure(self) -> None:
        """All variants, then what the bare model reached."""
        for variant in ("transformers padded", *(name for name in PLANS if name != "bare")):
            self.variant(variant)
        best = min(self.seconds["transformers padded, bulk"]["bare"])
        tokens = self.jobs["bulk"].tokens
        products = 2 * tokens * sum(module.weight.numel() for module in self.bare.model.modules() if isinstance(module, nn.Linear))
        limit = matrix_rate(self.device, 8192 if self.device == "cuda" else 64)
        self.figures["useful tokens per second, bare"] = round(tokens / best, 1)
        self.figures["share of the matrix rate, bare"] = round(products / best / limit, 4)

    def variant(self, name: str) -> None:
        """Time and memory of one variant over the bare model."""
        model = model_of(self.shape, self.device)
        if name == "transformers padded":
            calls = {kind: padded(model, pack, self.device) for kind, pack in self.jobs.items()}
        else:
            backbone = with_experts(model, PLANS[name], self.device, torch.float32 if name.endswith("fp32") else torch.bfloat16)
            calls = {kind: passes(backbone, pack) for kind, pack in self.jobs.items()}
        if name == "mixture":
            self.ratios["weights, one model with experts / two models"] = fixed(megabytes(model) / (2 * self.weights))
        for kind, call in calls.items():
            print(f"{time.strftime('%T')} {self.name}, {name}, {kind}", file=sys.stderr, flush=True)
            times = self.turns(name, call, kind)
            self.ratios[f"{name} / bare, {kind}"] = times.ratio(name, "bare")
            self.seconds[f"{name}, {kind}"] = rounded(times.seconds)
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            calls["bulk"]()
            peak = torch.cuda.max_memory_allocated() / 1e6 - self.weights
            self.figures[f"peak GB with {name}, the bare model's weights not counted"] = round(peak / 1e3, 2)

    def turns(self, name: str, call: Callable[[], object], kind: str) -> Times:
        """The variant and the bare model in turn, after one round to warm up."""
        calls = {"bare": passes(self.bare, self.jobs[kind]), name: call}
        times = Times({each: [] for each in calls})
        for turn in range(self.rounds + 1):
            for each in calls if turn % 2 else reversed(calls):
                spent = timed(calls[each], self.device, 1 if kind == "bulk" else 5)
                if turn:
                    times.seconds[each].append(spent)
        return times


def megabytes(model: nn.Module) -> float:
    """Of all parameters."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()) / 1e6


def fixed(value: float) -> dict[str, float]:
    """A ratio that needs no clock."""
    return dict.fromkeys(("value", "low", "high"), round(value, 4))


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, help="also write the result here")
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--tokens", type=int, default=32768, help="tokens of the bulk batch (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dry-run", action="store_true", help="a tiny model on the CPU")
    chosen = parser.parse_args(arguments)
    if chosen.dry_run:
        chosen.device, chosen.rounds, chosen.tokens = "cpu", 1, 64
    shapes: dict[str, Mapping[str, int]] = {"tiny": TINY} if chosen.dry_run else {name: SHAPES[name] for name in chosen.shapes}
    ratios: dict[str, Any] = {}
    seconds: dict[str, Any] = {}
    figures = {}
    content: dict[str, Any] = {}
    for name, shape in shapes.items():
        one = Shape(name, shape, chosen.device, chosen.rounds, chosen.tokens)
        one.measure()
        ratios |= {f"{name}: {what}": ratio for what, ratio in one.ratios.items()}
        seconds |= {f"{name}: {what}": times for what, times in one.seconds.items()}
        figures[name] = one.figures
        del one
        facts = argparse.Namespace(
            quick=chosen.dry_run, rounds=chosen.rounds, backbone="Qwen3 shapes, random weights", texts="random tokens"
        )
        clock = "wall seconds of a synchronised pass; the variant and the bare model take turns"
        content = _measure.result("gpu-shapes", __doc__, ratios, [], facts, clock=clock, figures=figures, seconds=seconds)
        _measure.keep(content, chosen.to)
    _measure.show(content, chosen.to)
    return content


if __name__ == "__main__":
    main()
