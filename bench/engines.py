"""Against ONNX Runtime, the engine of FastEmbed and FlashRank: the same backbone, exported, in batches as these libraries make them.

Both libraries fetch their weights from a hub, so their engine and their way of working are measured, not their packages: texts are
padded to the longest of their batch. FastEmbed takes 256 texts in the order in which they come; "sorted" is what it could do at best,
batches of 32 of about one length. FlashRank takes all pairs of a query in one batch; "sorted" as before. int8 is ONNX Runtime's dynamic
quantisation, weights per channel, and "equality" says what it costs: the smallest cosine to fp32 and the change of nDCG@10. Ours: the bare
backbone, and the mixture with three experts of rank 8 and a soft router in every layer, in fp32 and in bf16 mixed precision. Ratios are
the engine's time over ours: above 1, ours is faster. Needs `pip install onnxruntime onnxscript`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench import _measure
from bench._measure import interleaved, rounded
from twofold.backbone.load import load_model
from twofold.data.sources import open_dataset
from twofold.evaluate.measures import mean, per_query
from twofold.evaluate.retrieval import dense_run

LENGTH = 256
NAMES = ("input_ids", "attention_mask", "token_type_ids")
FASTEMBED, SORTED = 256, 32
"""Texts of a batch."""

Vectors = NDArray[np.float32]


class Inputs(nn.Module):
    """A backbone that takes its three inputs by place, for the export."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        """Token states (S, L, D)."""
        hidden: Tensor = self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state
        return hidden


def export(model: nn.Module, tokenizer: Any, folder: Path) -> dict[str, Path]:
    """The graph in fp32 and in int8, by torch's own exporter."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    example = tokenizer(["a text of a few words", "another"], padding=True, return_tensors="pt")
    free = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
    files = {"fp32": folder / "fp32.onnx", "int8": folder / "int8.onnx"}
    torch.onnx.export(
        Inputs(model).eval(),
        tuple(example[name] for name in NAMES),
        files["fp32"],
        input_names=list(NAMES),
        output_names=["hidden"],
        dynamic_shapes=(free,) * 3,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    quantize_dynamic(files["fp32"], files["int8"], weight_type=QuantType.QInt8, per_channel=True)
    return files


class Engine:
    """ONNX Runtime around one graph, on one thread."""

    def __init__(self, file: Path, tokenizer: Any) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # they keep activations of every shape: 21 GB of 24
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.tokenizer = tokenizer

    def encode(self, texts: Sequence[Any], batch: int = FASTEMBED, by_length: bool = False) -> Vectors:
        """Unit vectors (N, D) of texts, or of (query, document) pairs: the mean over tokens."""
        order = sorted(range(len(texts)), key=lambda i: -len(str(texts[i]))) if by_length else list(range(len(texts)))
        rows: list[Vectors] = []
        for start in range(0, len(texts), batch):
            given = [texts[i] for i in order[start : start + batch]]
            parts = ([query for query, _ in given], [document for _, document in given]) if isinstance(given[0], tuple) else (given,)
            inputs = self.tokenizer(*parts, padding=True, truncation=True, max_length=LENGTH, return_tensors="np")
            (hidden_SLD,) = self.session.run(None, {name: inputs[name].astype(np.int64) for name in NAMES})
            mask_SL1 = inputs["attention_mask"][..., None]
            mean_SD = (hidden_SLD * mask_SL1).sum(1) / mask_SL1.sum(1)
            rows.extend(mean_SD / np.linalg.norm(mean_SD, axis=1, keepdims=True))
        out = np.zeros((len(texts), len(rows[0])), dtype=np.float32)
        out[order] = np.stack(rows)
        return out

    def at_best(self, texts: Sequence[Any]) -> Vectors:
        """`encode` in small batches of one length."""
        return self.encode(texts, SORTED, by_length=True)


def quality(engines: dict[str, Engine], texts: list[str], name: str, queries: int) -> dict[str, float]:
    """What int8 costs."""
    vectors = {precision: engine.at_best(texts) for precision, engine in engines.items()}
    data = open_dataset(name).subset(documents=4 * queries, queries=queries)
    scores = {}
    for precision, engine in engines.items():
        run = dense_run(engine.at_best, engine.at_best, data, "train")
        scores[precision] = round(mean(per_query(run, data.qrels("train"))["nDCG@10"]), 4)
    cosine = float((vectors["fp32"] * vectors["int8"]).sum(1).min())
    return {"int8_cosine": round(cosine, 5), "int8_ndcg_change": round(scores["int8"] - scores["fp32"], 4), "fp32_ndcg": scores["fp32"]}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    chosen = _measure.options(__doc__, arguments, rounds=5)
    few, many, queries = (4, 8, 8) if chosen.quick else (64, 512, 500)
    precisions = ("fp32", "bf16") if _measure.has_bf16() else ("fp32",)
    with _measure.one_thread(), tempfile.TemporaryDirectory() as folder:
        model, tokenizer = load_model(chosen.backbone)
        engines = {precision: Engine(file, tokenizer) for precision, file in export(model, tokenizer, Path(folder)).items()}
        ours = {}
        for precision in precisions:
            ours[f"bare, {precision}"] = _measure.model(chosen.backbone, None, precision, LENGTH)
            ours[f"mixture, {precision}"] = _measure.model(chosen.backbone, _measure.OURS, precision, LENGTH)
        question = _measure.queries(chosen.texts, 1)[0]
        jobs: dict[str, list[Any]] = {
            "mixed_64": _measure.queries(chosen.texts, few // 2) + _measure.documents(chosen.texts, few // 2),
            f"texts_{many}": _measure.documents(chosen.texts, many),
            f"rerank_{few}": [(question, document) for document in _measure.documents(chosen.texts, few)],
        }
        ratios: dict[str, Any] = {}
        seconds: dict[str, Any] = {}
        for job, given in jobs.items():
            calls: dict[str, Callable[[], object]] = {}
            for precision, engine in engines.items():
                calls[f"onnxruntime {precision}"] = lambda engine=engine, given=given: engine.encode(given)
                calls[f"onnxruntime {precision} sorted"] = lambda engine=engine, given=given: engine.at_best(given)
            for name, one in ours.items():
                call = one.score if job.startswith("rerank") else one.encode
                calls[name] = lambda call=call, given=given: call(given)
            times = interleaved(calls, chosen.rounds)
            for name in ours:
                for engine_name in [f"onnxruntime {precision}{how}" for precision in engines for how in ("", " sorted")]:
                    ratios[f"{engine_name} / {name}, {job}"] = times.ratio(engine_name, name)
            seconds[job] = rounded(times.seconds)
        own = ours["bare, fp32"].encode(jobs["mixed_64"])
        off = float(np.abs(engines["fp32"].at_best(jobs["mixed_64"]) - own).max())
        equality = {"fp32_max_abs": float(f"{off:.1e}"), **quality(engines, jobs["mixed_64"], chosen.texts, queries)}
        content = _measure.result("engines", __doc__, ratios, [], chosen, equality=equality, seconds=seconds)
    _measure.show(content, chosen.to)
    return content


if __name__ == "__main__":
    main()
