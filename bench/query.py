"""One short query, from text to vector: what a search box waits for.

A query of 16 tokens through `UnifiedModel.encode` and through plain transformers in fp32 (tokenizer, model, mean, unit length). So little
text is dominated by everything but products, so nothing that packing gains shows here. Below 1 is faster than transformers.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.nn import functional as F

from bench import _measure
from bench._measure import interleaved, rounded
from twofold.backbone import graph
from twofold.backbone.load import load_model
from twofold.model.unified import UnifiedModel

TOKENS = 16
REPEATS = 50


def plain(backbone: str, text: str) -> Callable[[], Tensor]:
    """What anybody writes with transformers."""
    model, tokenizer = load_model(backbone)
    model.eval()

    @torch.inference_mode()
    def call() -> Tensor:
        inputs = tokenizer([text], truncation=True, max_length=TOKENS, return_tensors="pt")
        return F.normalize(model(**inputs).last_hidden_state.mean(1), dim=-1)

    return call


def repeated(call: Callable[[], object], count: int) -> Callable[[], None]:
    """A call often enough for the clock."""

    def calls() -> None:
        for _ in range(count):
            call()

    return calls


def exported(model: UnifiedModel) -> float:
    """Gives the model a graph for its queries. Returns by how many MB the process has grown, without what is given back."""
    gc.collect()
    before = psutil.Process().memory_info().rss
    if why := graph.export(model.backbone, "retrieve"):
        raise SystemExit(why)
    gc.collect()
    return round((psutil.Process().memory_info().rss - before) / 1e6, 1)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    chosen = _measure.options(__doc__, arguments, rounds=9)
    text = max(_measure.queries(chosen.texts, 64), key=lambda query: len(query.split()))  # long enough to be cut at 16 tokens
    with _measure.one_thread():
        megabytes: dict[str, float] = {}
        calls: dict[str, Callable[[], object]] = {"transformers, fp32": plain(chosen.backbone, text)}
        for precision in ("fp32", "bf16", "bf16-weights") if _measure.has_bf16() else ("fp32",):
            for name, plan in {"ours": None, "mixture": _measure.OURS}.items():
                model = _measure.model(chosen.backbone, plan, precision, TOKENS)
                calls[f"{name}, {precision}"] = lambda model=model: model.encode([text])
                if graph.available() and precision != "bf16-weights":
                    fast = _measure.model(chosen.backbone, plan, precision, TOKENS)
                    megabytes[f"{name}, {precision}"] = exported(fast)
                    calls[f"{name}, openvino {precision}"] = lambda model=fast: model.encode([text])
        count = 2 if chosen.quick else REPEATS
        times = interleaved({name: repeated(call, count) for name, call in calls.items()}, chosen.rounds)
        ratios = {f"{name} / transformers fp32": times.ratio(name, "transformers, fp32") for name in calls if name != "transformers, fp32"}
        eager = min(ratio["value"] for name, ratio in ratios.items() if name.startswith("ours") and "openvino" not in name)
        parts = {"exported": "mixture, openvino fp32", "openvino_bf16": "mixture, openvino bf16"}
        by_graph = {part: times.ratio(name, "transformers, fp32")["value"] for part, name in parts.items() if name in calls}
        milliseconds = {name: round(1000 / times.rate(name, count), 2) for name in calls}
        content = _measure.result(
            "query",
            __doc__,
            ratios,
            [("S8", {"eager": eager, **by_graph})],
            chosen,
            milliseconds=milliseconds,
            graph_megabytes=megabytes,
            seconds=rounded(times.seconds),
        )
    _measure.show(content, chosen.to)
    return content


if __name__ == "__main__":
    main()
