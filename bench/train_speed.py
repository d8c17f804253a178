"""Training tokens per second: the packed mixture over the same loop on PEFT with padded batches (S10).

Both sides take the same examples (queries with one positive and one other document, real texts of all lengths up to 256 tokens), run
forward and backward through the same backbone, frozen and without dropout, with adapters on the same linear layers, and end with
clipping and AdamW. Ours: three experts of rank 8 with a soft router in every layer, packed, through the retrieve task's own step. Theirs:
one LoRA of rank 24, hence as many parameters but the routers', queries and documents each padded to their longest, mean pooling, and the
very same loss; as B starts at zero, both begin with the same vectors, and "loss_difference" says so. Useful tokens (padding not counted)
are the same on both sides, so the ratio of tokens per second is the ratio of times. In fp32, and under bf16 autocast on both sides.
"packed shared LoRA" is one expert of rank 24 without a router: what is left is packing alone. "documents of 128 tokens" cuts them there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from bench import _measure
from bench._measure import interleaved, rounded
from twofold.backbone.load import load_model
from twofold.backbone.memory import TRAINING_KERNELS, bound_kernels
from twofold.core.inject import Expert, LayerPlan, target_layers
from twofold.model.build import build_model
from twofold.model.spec import ModelSpec
from twofold.records import Example
from twofold.tasks import StepContext, World
from twofold.tasks.retrieve import RetrieveTask

RATE = 1e-9
"""Learning rate: steps are timed, and nothing should move between rounds."""
PLANS = {"mixture": _measure.OURS, "packed shared LoRA": LayerPlan((Expert("shared", 24),))}


def batch(dataset: str, size: int) -> list[Example]:
    """Queries, each with a document that stands for its positive and one other."""
    queries, documents = _measure.queries(dataset, size), _measure.documents(dataset, 2 * size)
    ids = [f"d{i}" for i in range(2 * size)]
    return [Example(f"q{i}", queries[i], tuple(ids[i::size]), tuple(documents[i::size]), (1, 0)) for i in range(size)]


def ours(backbone: str, plan: LayerPlan, examples: list[Example], length: int, precision: str) -> tuple[Callable[[], float], int]:
    """One optimiser step of ours, and how many tokens it sees."""
    spec = ModelSpec(
        backbone, {"retrieve": {}}, plan=plan, precision=precision, max_length=length, pair_length=length, query_length=min(64, length // 4)
    )
    model = build_model(spec).train()
    task = model.tasks["retrieve"]
    assert isinstance(task, RetrieveTask)
    groups = {name: [parameter for _, parameter in members] for name, members in model.groups().items() if name != "backbone" and members}
    optimiser = torch.optim.AdamW([{"params": members} for members in groups.values()], lr=RATE)

    def step() -> float:
        done = task.step(examples, StepContext(model.encoder, Tensor.backward))
        for members in groups.values():
            clip_grad_norm_(members, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return done.loss

    texts = [example.query for example in examples] + [text for example in examples for text in example.documents]
    return step, model.tokens.texts(texts).tokens


def theirs(backbone: str, examples: list[Example], length: int, precision: str) -> Callable[[], float]:
    """One optimiser step of the same loop on PEFT: padded batches, the mask, mean pooling over it."""
    base, tokenizer = load_model(backbone)
    config = LoraConfig(r=24, lora_alpha=48, lora_dropout=0.0, target_modules=list(target_layers(base, ".*")))
    model = get_peft_model(base, config).train()
    task = RetrieveTask(
        "retrieve", temperature=0.05, margin=0.1, dims=(), query_negatives=False, document_negatives=False, cache_tokens=1 << 30
    )
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=RATE)

    def encode(texts: list[str]) -> Tensor:
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            hidden_SLD = model(**inputs).last_hidden_state
        mask_SL1 = inputs["attention_mask"].unsqueeze(-1).float()
        return F.normalize((hidden_SLD.float() * mask_SL1).sum(1) / mask_SL1.sum(1), dim=-1)

    def step() -> float:
        vectors = [encode(texts) for texts in ([e.query for e in examples], [text for e in examples for text in e.documents])]
        loss = task.loss(vectors[0], vectors[1], examples, World())
        loss.backward()
        clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    chosen = _measure.options(__doc__, arguments, rounds=5)
    examples = batch(chosen.texts, 3 if chosen.quick else 16)
    lengths = {"": 32 if chosen.quick else 256, ", documents of 128 tokens": 16 if chosen.quick else 128}
    ratios: dict[str, Any] = {}
    seconds, rates, differences = {}, {}, {}
    bound_kernels(TRAINING_KERNELS)
    with _measure.one_thread():
        for precision in ("fp32", "bf16") if _measure.has_bf16() else ("fp32",):
            for kind, length in lengths.items():
                steps: dict[str, Callable[[], float]] = {}
                tokens = 0
                for name, plan in PLANS.items():
                    steps[name], tokens = ours(chosen.backbone, plan, examples, length, precision)
                steps["peft"] = theirs(chosen.backbone, examples, length, precision)
                losses = {name: step() for name, step in steps.items()}
                times = interleaved(steps, chosen.rounds)
                for name in PLANS:
                    ratios[f"{name} / PEFT padded, tokens per second, {precision}{kind}"] = times.ratio("peft", name)
                seconds[f"{precision}{kind}"] = rounded(times.seconds)
                rates[f"{precision}{kind}"] = {"tokens": tokens, **{name: times.rate(name, tokens) for name in steps}}
                differences[f"{precision}{kind}"] = round(max(losses.values()) - min(losses.values()), 6)
        worst = min(ratio["value"] for name, ratio in ratios.items() if name.startswith("mixture") and "documents" not in name)
        content = _measure.result(
            "train_speed",
            __doc__,
            ratios,
            [("S10", worst)],
            chosen,
            loss_difference=differences,
            useful_tokens_per_second=rates,
            seconds=seconds,
        )
    _measure.show(content, chosen.to)
    return content


if __name__ == "__main__":
    main()
