"""What the packed stream gains: `UnifiedModel.encode` over `SentenceTransformer.encode`, texts in, vectors out, tokenising included.

The same backbone on both sides, without experts, hence the same vectors (S11); "mixture" is ours with three experts of rank 8 and a
soft router in every layer, which is what a trained model runs. The gain is the padding that is left out, so it depends on the lengths:
mixed_64 is what a server finds in its queue, 32 queries and 32 documents; documents_64 is 64 documents, texts_1500 an index being
built, equal_lengths the case in which there is nothing to gain. "padding" is the other side's tokens with padding over its tokens
without. Ratios are sentence-transformers' time over ours in the same precision (bf16-weights: all weights in bf16 on both sides); S2 is
the lower of the two precisions. "bf16" is ours in mixed precision over sentence-transformers' default, fp32: what choosing the precision
gains on a processor that has bf16 (S3). S1 is the useful work of texts_1500, padding not counted, over the fastest matrix
product that torch has on the machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from bench import _measure
from bench._measure import interleaved, rounded
from twofold.backbone.load import resolve
from twofold.data.sources import open_dataset
from twofold.evaluate.measures import mean, per_query
from twofold.evaluate.retrieval import dense_run
from twofold.model.unified import UnifiedModel

PRECISIONS = {"fp32": torch.float32, "bf16-weights": torch.bfloat16}


def peer(backbone: str, precision: str, length: int) -> SentenceTransformer:
    """sentence-transformers around the backbone: its own batches of 32 sorted by characters, its own tokenising."""
    transformer = Transformer(resolve(backbone), max_seq_length=length, model_kwargs={"dtype": PRECISIONS[precision]})
    pooling = Pooling(transformer.get_word_embedding_dimension(), pooling_mode="mean")
    return SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu")


def systems(backbone: str, precisions: Sequence[str], length: int) -> dict[str, Any]:
    """Name → model with an `encode`."""
    found: dict[str, Any] = {}
    for precision in precisions:
        found[f"sentence-transformers, {precision}"] = peer(backbone, precision, length)
        found[f"ours, {precision}"] = _measure.model(backbone, precision=precision, length=length)
        found[f"mixture, {precision}"] = _measure.model(backbone, _measure.OURS, precision, length)
        found[f"ours padded, {precision}"] = _measure.model(backbone, precision=precision, length=length, attention="padded")
    if "bf16-weights" in precisions:
        found["ours, bf16"] = _measure.model(backbone, precision="bf16", length=length)
        found["mixture, bf16"] = _measure.model(backbone, _measure.OURS, "bf16", length)
    return found


def speeds(
    kind: str, models: dict[str, Any], texts: list[str], rounds: int, precisions: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
    """Ratios, seconds, and useful tokens per second of one list of texts."""
    variants = {name: (lambda model=model: model.encode(texts)) for name, model in models.items()}
    times = interleaved(variants, rounds)
    ratios = {}
    for precision in precisions:
        base = f"sentence-transformers, {precision}"
        for name in ("ours", "mixture", "ours padded"):
            if f"{name}, {precision}" in times.seconds:
                ratios[f"sentence-transformers / {name}, {precision}, {kind}"] = times.ratio(base, f"{name}, {precision}")
        if f"ours padded, {precision}" in times.seconds:
            ratios[f"padded / packed of our own, {precision}, {kind}"] = times.ratio(f"ours padded, {precision}", f"ours, {precision}")
    for name in ("ours", "mixture"):
        if f"{name}, bf16" in times.seconds:
            ratios[f"sentence-transformers fp32 / {name} bf16, {kind}"] = times.ratio("sentence-transformers, fp32", f"{name}, bf16")
    tokens = models["ours, fp32"].tokens.texts(texts).tokens
    sizes = {"texts": len(texts), "tokens": tokens, "padding": padding(models["ours, fp32"], texts)}
    return ratios, rounded(times.seconds), {**sizes, **{name: times.rate(name, tokens) for name in variants}}


def padding(model: UnifiedModel, texts: list[str], batch: int = 32) -> float:
    """Tokens with padding over tokens in sentence-transformers' batches: sorted by characters, each as long as its longest text."""
    pack = model.tokens.texts(sorted(texts, key=len, reverse=True))
    lengths = [length for _, length in sorted(zip(pack.order, pack.lengths, strict=True))]
    padded = sum(max(lengths[i : i + batch]) * len(lengths[i : i + batch]) for i in range(0, len(lengths), batch))
    return round(padded / sum(lengths), 3)


def equality(models: dict[str, Any], texts: list[str], dataset: str, queries: int) -> dict[str, float]:
    """How far our vectors are from the padded fp32 model's: largest difference in fp32, smallest cosine in bf16, nDCG@10 lost."""
    want = models["sentence-transformers, fp32"].encode(texts)
    found = {"fp32_max_abs": float(np.abs(models["ours, fp32"].encode(texts) - want).max())}
    if "ours, bf16" not in models:
        return found
    data = open_dataset(dataset).subset(documents=4 * queries, queries=queries)
    scores = {}
    for precision in ("fp32", "bf16", "bf16-weights"):
        model = models[f"ours, {precision}"]
        if precision != "fp32":
            key = precision.replace("-", "_")
            found[f"{key}_cosine"] = float((model.encode(texts) * want).sum(1).min())
        run = dense_run(model.encode_queries, model.encode_documents, data, "train")  # the largest split; nothing is trained here
        scores[precision] = mean(per_query(run, data.qrels("train"))["nDCG@10"])
        if precision != "fp32":
            found[f"{key}_ndcg_change"] = abs(scores[precision] - scores["fp32"])
    return found


def limits(precisions: Sequence[str]) -> list[str]:
    """The precisions of ours whose share of the machine's limit is taken."""
    return ["fp32", "bf16"] if "bf16-weights" in precisions else ["fp32"]


def of_the_limit(model: UnifiedModel, texts: list[str], seconds: Sequence[float]) -> dict[str, float]:
    """Useful GFLOP/s of encoding over the fastest matrix product of the machine in the same precision, measured now."""
    reached = _measure.useful_flops(model, model.tokens.texts(texts).lengths) / statistics.median(seconds)
    limit = _measure.matrix_rate(torch.float32 if model.spec.precision == "fp32" else torch.bfloat16)
    return {"share": round(reached / limit, 4), "gflops": round(reached / 1e9, 1), "limit_gflops": round(limit / 1e9, 1)}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    chosen = _measure.options(__doc__, arguments, rounds=5)
    few, many, length, queries = (8, 12, 16, 8) if chosen.quick else (64, 1500, 128, 500)
    precisions = ["fp32", "bf16-weights"] if _measure.has_bf16() else ["fp32"]
    with _measure.one_thread():
        models = systems(chosen.backbone, precisions, 256)
        short = {name: model for name, model in systems(chosen.backbone, precisions, length).items() if not name.startswith("mixture")}
        brief = {name: model for name, model in models.items() if name.startswith(("sentence", "ours,"))}
        jobs = {
            "mixed_64": (models, _measure.queries(chosen.texts, few // 2) + _measure.documents(chosen.texts, few // 2), chosen.rounds),
            "documents_64": (models, _measure.documents(chosen.texts, few), chosen.rounds),
            "equal_lengths": (short, _measure.documents(chosen.texts, few, words=length), chosen.rounds),
            "texts_1500": (brief, _measure.documents(chosen.texts, many), max(1, chosen.rounds * 3 // 5)),
        }
        ratios: dict[str, Any] = {}
        seconds, rates = {}, {}
        for kind, (systems_here, texts, rounds) in jobs.items():
            found, seconds[kind], rates[kind] = speeds(kind, systems_here, texts, rounds, precisions)
            ratios |= found
        equal = equality(models, jobs["mixed_64"][1], chosen.texts, queries)
        speed = {
            kind: min(ratios[f"sentence-transformers / ours, {p}, {kind}"]["value"] for p in precisions)
            for kind in ("mixed_64", "texts_1500", "equal_lengths")
        }
        bulk = jobs["texts_1500"][1]
        shares = {name: of_the_limit(models[f"ours, {name}"], bulk, seconds["texts_1500"][f"ours, {name}"]) for name in limits(precisions)}
        board: list[tuple[str, Any]] = [
            ("S1", {name: share["share"] for name, share in shares.items()}),
            ("S2", speed),
            ("S11", {key: value for key, value in equal.items() if not key.startswith("bf16_weights")}),
        ]
        if "bf16-weights" in precisions:
            board.append(("S3", ratios["sentence-transformers fp32 / ours bf16, mixed_64"]["value"]))
        figures = {"equality": equal, "useful_tokens_per_second": rates, "share_of_the_limit": shares, "seconds": seconds}
        content = _measure.result("packed", __doc__, ratios, board, chosen, **figures)
    _measure.show(content, chosen.to)
    return content


if __name__ == "__main__":
    main()
