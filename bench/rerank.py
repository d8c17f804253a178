"""Reranking: `UnifiedModel.score` over `CrossEncoder.predict`, 100 (query, document) pairs of up to 256 tokens, tokenising included.

Ours is the unified model as it is trained (three experts of rank 8, a soft router in every layer), and also its bare backbone; the peer is
sentence-transformers' CrossEncoder around BertForSequenceClassification (or its family's like) on the same backbone, at its defaults.
The heads differ, so the scores do; the work does not. One query with 100 documents of all lengths is what a search engine asks for;
"equal" is 100 pairs that all fill 256 tokens. S4 compares the mixture: in fp32 on both sides, and in bf16 mixed precision with the
peer's default, fp32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bench import _measure
from bench._measure import interleaved, rounded
from twofold.backbone.load import resolve
from twofold.core.inject import LayerPlan

LENGTH = 256


def peer(backbone: str, folder: Path, dtype: torch.dtype) -> CrossEncoder:
    """A cross-encoder with one output on the backbone, opened as a user would open it."""
    if not folder.is_dir():
        AutoModelForSequenceClassification.from_pretrained(resolve(backbone), num_labels=1).save_pretrained(folder)
        AutoTokenizer.from_pretrained(resolve(backbone)).save_pretrained(folder)
    return CrossEncoder(str(folder), max_length=LENGTH, device="cpu", model_kwargs={"dtype": dtype})


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    chosen = _measure.options(__doc__, arguments, rounds=5)
    count = 4 if chosen.quick else 100
    precisions = {"fp32": torch.float32}
    if _measure.has_bf16():
        precisions["bf16-weights"] = torch.bfloat16
    ratios: dict[str, Any] = {}
    seconds, rates = {}, {}
    with _measure.one_thread(), tempfile.TemporaryDirectory() as folder:
        models: dict[str, Any] = {}
        for precision in [*precisions, *(["bf16"] if len(precisions) > 1 else [])]:
            if precision in precisions:
                models[f"cross-encoder, {precision}"] = peer(chosen.backbone, Path(folder) / "peer", precisions[precision])
            models[f"mixture, {precision}"] = _measure.model(chosen.backbone, _measure.OURS, precision, LENGTH)
            models[f"bare, {precision}"] = _measure.model(chosen.backbone, LayerPlan(), precision, LENGTH)
        query = _measure.queries(chosen.texts, 1)[0]
        lists = {
            "mixed": _measure.documents(chosen.texts, count),
            "equal": _measure.documents(chosen.texts, count, words=10 if chosen.quick else LENGTH),
        }
        for kind, documents in lists.items():
            pairs = [(query, document) for document in documents]
            variants: dict[str, Any] = {}
            for name, model in models.items():
                variants[name] = (
                    (lambda model=model, pairs=pairs: model.predict(pairs))
                    if name.startswith("cross")
                    else (lambda model=model, pairs=pairs: model.score(pairs))
                )
            times = interleaved(variants, chosen.rounds)
            for precision in precisions:
                for name in ("mixture", "bare"):
                    ratios[f"cross-encoder / {name}, {precision}, {kind}"] = times.ratio(
                        f"cross-encoder, {precision}", f"{name}, {precision}"
                    )
            for name in ("mixture", "bare"):
                if f"{name}, bf16" in models:
                    ratios[f"cross-encoder fp32 / {name} bf16, {kind}"] = times.ratio("cross-encoder, fp32", f"{name}, bf16")
            seconds[kind] = rounded(times.seconds)
            tokens = models["bare, fp32"].tokens.pairs(pairs).tokens
            rates[kind] = {"pairs": count, "tokens": tokens, **{name: times.rate(name, tokens) for name in variants}}
        board = {"fp32": ratios["cross-encoder / mixture, fp32, mixed"]["value"]}
        if "cross-encoder fp32 / mixture bf16, mixed" in ratios:
            board["automatic"] = ratios["cross-encoder fp32 / mixture bf16, mixed"]["value"]
        content = _measure.result("rerank", __doc__, ratios, [("S4", board)], chosen, useful_tokens_per_second=rates, seconds=seconds)
    _measure.show(content, chosen.to)
    return content


if __name__ == "__main__":
    main()
