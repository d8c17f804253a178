"""Where packing has the least to give: one text alone, texts of a few words, texts as long as the model reads.

`UnifiedModel.encode` over `SentenceTransformer.encode` in the same precision, as in bench/packed.py: the same backbone, texts in,
vectors out. one_query is a query alone, short_256 the first four words of 256 documents, long_8 eight texts of 512 tokens and long_1 one
of them. Above 1, ours is faster; "mixture" is what a trained model runs, with three experts of rank 8 and a soft router in every layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench import _measure, packed

LONG, WORDS = 512, 4


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    chosen = _measure.options(__doc__, arguments, rounds=9)
    length, many = (16, 8) if chosen.quick else (LONG, 256)
    precisions = ["fp32", "bf16-weights"] if _measure.has_bf16() else ["fp32"]
    with _measure.one_thread():
        models = {name: model for name, model in packed.systems(chosen.backbone, precisions, length).items() if "padded" not in name}
        long = [" ".join([text] * 8) for text in _measure.documents(chosen.texts, 8, words=4 if chosen.quick else 64)]
        jobs = {
            "one_query": _measure.queries(chosen.texts, 1),
            f"short_{many}": [" ".join(text.split()[:WORDS]) for text in _measure.documents(chosen.texts, many)],
            "long_1": long[:1],
            "long_8": long,
        }
        ratios: dict[str, Any] = {}
        seconds, rates = {}, {}
        for job, texts in jobs.items():
            found, seconds[job], rates[job] = packed.speeds(job, models, texts, chosen.rounds, precisions)
            ratios |= found
        content = _measure.result("edges", __doc__, ratios, [], chosen, useful_tokens_per_second=rates, seconds=seconds)
    _measure.show(content, chosen.to)
    return content


if __name__ == "__main__":
    main()
