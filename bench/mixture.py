"""What a mixture of low-rank experts costs: forward passes over the bare backbone, and over PEFT's ways of using several adapters.

Four experts of rank 8 in every linear layer with a soft router per layer, against the same packed backbone without experts (S5), with
constant routing folded into the weights (S7), and against PEFT on the same shapes (S6): four adapters summed (what mixing means
there), four adapters in one batch with one adapter per text, one adapter alone, and X-LoRA, which mixes by a learned router too.
"one_lora" is our own layer with one LoRA of rank 32 and no router to ask: what routing costs is mixture / one_lora.
"equal" is 12 texts of 128 tokens, where nobody pads; "mixed" is one pack of real texts of all lengths. "products" is what the mixture
multiplies and the bare pass does not (A, the router's rows, B, in every layer), on inputs that lie ready, without a gate and without a
mean: 1 and its ratio is below what any mixture of these shapes can reach with these libraries.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, XLoraConfig, get_peft_model
from torch import Tensor, nn

from bench import _measure
from bench._measure import interleaved, rounded
from twofold.backbone.load import load_model
from twofold.backbone.packed import Pack
from twofold.core.inject import Expert, LayerPlan, mixtures, target_layers
from twofold.core.product import linear
from twofold.model.unified import UnifiedModel

EXPERTS = tuple(Expert(f"expert_{i}", 8) for i in range(4))
PLANS = {
    "bare": LayerPlan(),
    "one_lora": LayerPlan((Expert("shared", 8 * len(EXPERTS)),), router="uniform"),
    "mixture": LayerPlan(EXPERTS, router="soft"),
    "mixture_token_router": LayerPlan(EXPERTS, router="soft", router_options={"level": "token"}),
    "mixture_xlora": LayerPlan(EXPERTS, router="xlora", scope="block"),
    "folded": LayerPlan(EXPERTS, router="task_gate"),
}
"""Variant → plan; the router of "mixture" decides once per text and layer, that of "mixture_xlora" once per token and block."""


def forward(model: UnifiedModel, pack: Pack) -> Callable[[], Tensor]:
    """A pass of ours without tokenising: hidden states of the pack."""

    @torch.inference_mode()
    def call() -> Tensor:
        return model.backbone(pack, "retrieve")[0]

    return call


def products(model: UnifiedModel, tokens: int, precision: str) -> Callable[[], None]:
    """The mixture's own products alone, for a pass of so many tokens: nothing gates, pools or reads what another layer wrote."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    jobs = []
    for layer in mixtures(model.backbone.model):
        experts = layer.roster.visible(("retrieve",))
        a_RD, b_DR = layer.bank.stack(experts)
        row_ED = torch.cat([layer.router.row[name] for name in experts])
        jobs.append([each.detach().to(dtype) for each in (a_RD, row_ED, b_DR)])
    inputs = {width: torch.randn(tokens, width).to(dtype) for width in {a_RD.shape[1] for a_RD, _, _ in jobs}}
    outputs = {width: torch.zeros(tokens, width, dtype=dtype) for width in {b_DR.shape[0] for _, _, b_DR in jobs}}

    @torch.inference_mode()
    def call() -> None:
        for a_RD, row_ED, b_DR in jobs:
            x = inputs[a_RD.shape[1]]
            z = linear(x, a_RD)
            linear(x, row_ED)
            outputs[len(b_DR)].addmm_(z, b_DR.t())

    return call


class Inside(nn.Module):
    """X-LoRA finds its adapters only where the transformer is an attribute `model` of what it wraps."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.config = model, model.config
        self.config.use_cache = False

    def forward(self, **inputs: Any) -> Any:
        return self.model(**inputs)


def lora(targets: Sequence[str]) -> LoraConfig:
    """An adapter of rank 8 on every linear layer of the blocks, without dropout, its B not zero."""
    return LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=list(targets), init_lora_weights=False)


def peft_models(backbone: str) -> dict[str, Any]:
    """PEFT around copies of the backbone: one adapter, four summed, four for a mixed batch."""
    found = {}
    for name, count in (("peft_one", 1), ("peft_sum", 4), ("peft_mixed_batch", 4)):
        base, _ = load_model(backbone)
        targets = list(target_layers(base, ".*"))
        model = get_peft_model(base, lora(targets), adapter_name="a0")
        for i in range(1, count):
            model.add_adapter(f"a{i}", lora(targets))
        if name == "peft_sum":
            model.base_model.set_adapter([f"a{i}" for i in range(count)])
        found[name] = model.eval()
    return found


def xlora(backbone: str, folder: Path) -> Any:
    """X-LoRA over four adapters of rank 8, with its default classifier of depth 1."""
    for i in range(4):
        base, _ = load_model(backbone)
        adapter = get_peft_model(Inside(base), lora([f"model.{name}" for name in target_layers(base, ".*")]), adapter_name="default")
        adapter.save_pretrained(folder / str(i))
    base, _ = load_model(backbone)
    settings = XLoraConfig(
        hidden_size=base.config.hidden_size, adapters={str(i): str(folder / str(i)) for i in range(4)}, layerwise_scalings=True
    )
    return get_peft_model(Inside(base), settings).eval()


def peft_pass(model: Any, ids_SL: Tensor, precision: str, **inputs: Any) -> Callable[[], Tensor]:
    """A pass of a peer's on texts of equal length: no mask is needed, so none is given."""

    @torch.inference_mode()
    def call() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return model(input_ids=ids_SL, **inputs).last_hidden_state

    return call


def measure(
    precision: str, chosen: Any, peers: dict[str, Any], count: int, length: int
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Ratios, seconds and sizes in one precision."""
    models = {name: _measure.model(chosen.backbone, plan, precision) for name, plan in PLANS.items()}
    models["folded"].fold("retrieve")
    tokens = models["bare"].tokens
    long = _measure.documents(chosen.texts, count, words=length)
    equal = tokens.with_lengths(length, tokens.pair_length).texts(long)
    mixed = tokens.texts(_measure.documents(chosen.texts, 2 * count))
    ids_SL = equal.input_ids_T.view(count, -1)
    adapters = [f"a{i % 4}" for i in range(count)]
    variants: dict[str, Callable[[], object]] = {name: forward(model, equal) for name, model in models.items()}
    variants["products"] = products(models["mixture"], equal.tokens, precision)
    for name, model in peers.items():
        given = {"adapter_names": adapters} if name == "peft_mixed_batch" else {}
        variants[name] = peft_pass(model, ids_SL, precision, **given)
    ratios, seconds = {}, {}
    times = interleaved(variants, chosen.rounds)
    for name in PLANS:
        if name != "bare":
            ratios[f"{name} / bare, {precision}, equal"] = times.ratio(name, "bare")
    ratios[f"products / bare, {precision}, equal"] = times.ratio("products", "bare")
    for name in peers:
        above = "bare" if name == "transformers" else "mixture"
        ratios[f"{above} / {name}, {precision}, equal"] = times.ratio(above, name)
    ratios[f"mixture / one_lora, {precision}, equal"] = times.ratio("mixture", "one_lora")
    seconds[f"{precision}, equal"] = rounded(times.seconds)
    times = interleaved({name: forward(model, mixed) for name, model in models.items()}, chosen.rounds)
    for name in PLANS:
        if name != "bare":
            ratios[f"{name} / bare, {precision}, mixed"] = times.ratio(name, "bare")
    ratios[f"mixture / one_lora, {precision}, mixed"] = times.ratio("mixture", "one_lora")
    seconds[f"{precision}, mixed"] = rounded(times.seconds)
    return ratios, seconds, {"equal": [count, ids_SL.shape[1]], "mixed": {"texts": len(mixed.lengths), "tokens": mixed.tokens}}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    chosen = _measure.options(__doc__, arguments, rounds=9)
    count, length = (4, 16) if chosen.quick else (12, 128)
    precisions = ["fp32", "bf16"] if _measure.has_bf16() else ["fp32"]
    ratios: dict[str, Any] = {}
    seconds: dict[str, Any] = {}
    with _measure.one_thread(), tempfile.TemporaryDirectory() as folder:
        peers = {
            "transformers": load_model(chosen.backbone)[0].eval(),
            **peft_models(chosen.backbone),
            "xlora": xlora(chosen.backbone, Path(folder)),
        }
        for precision in precisions:
            found, times, sizes = measure(precision, chosen, peers, count, length)
            ratios, seconds = {**ratios, **found}, {**seconds, **times}
        worst = {
            name: max(ratios[f"{name} / bare, {p}, {shape}"]["value"] for p in precisions for shape in ("equal", "mixed"))
            for name in ("mixture", "folded")
        }
        over = {name: ratios[f"mixture / {name}, fp32, equal"]["value"] for name in ("peft_sum", "peft_mixed_batch", "xlora")}
        content = _measure.result(
            "mixture",
            __doc__,
            ratios,
            [("S5", worst["mixture"]), ("S6", over), ("S7", worst["folded"])],
            chosen,
            sizes=sizes,
            seconds=seconds,
        )
    _measure.show(content, chosen.to)
    return content


if __name__ == "__main__":
    main()
