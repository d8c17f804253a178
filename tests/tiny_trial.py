"""What a trial of seconds needs, on disk: a random two-layer BERT with a tokenizer, and a BEIR folder of made-up words."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.tiny import bert_tokenizer, tiny_model
from twofold.config import TrialConfig
from twofold.core.inject import LayerPlan
from twofold.model.build import build_model
from twofold.model.spec import ModelSpec
from twofold.model.unified import UnifiedModel
from twofold.records import Example

DOCUMENTS, QUERIES = 40, {"train": 32, "dev": 4, "test": 4}
LENGTHS = {"max_length": 24, "pair_length": 40, "query_length": 10}


def write_backbone(folder: Path) -> Path:
    """Saves the model and its tokenizer as transformers does."""
    model: Any = tiny_model("bert")
    model.save_pretrained(folder)
    bert_tokenizer().save_pretrained(folder)
    return folder


def write_beir(folder: Path) -> Path:
    """Document i holds six words; the query of a document holds three of them, and has one judged 0; its last two words answer it."""
    draw = random.Random(7)
    words = ["".join(draw.choices("bcdefghklmnoprstuvw", k=2)) for _ in range(60)]
    texts = [draw.sample(words, 6) for _ in range(DOCUMENTS)]
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": f"d{i}", "title": text[0], "text": " ".join(text[1:])} for i, text in enumerate(texts)]
    names = [f"{split}{i}" for split, count in QUERIES.items() for i in range(count)]
    queries: list[dict[str, Any]] = [{"_id": name, "text": " ".join(draw.sample(texts[i], 3))} for i, name in enumerate(names)]
    for i, query in enumerate(queries):
        query["metadata"] = {"answers": [" ".join(texts[i][-2:])]}
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for split in QUERIES:
        rows = [f"{name}\td{i}\t1\n{name}\td{(i + 1) % DOCUMENTS}\t0\n" for i, name in enumerate(names) if name.startswith(split)]
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows), encoding="utf-8")
    return folder


def tiny_config(backbone_dir: Path, beir_dir: Path, /, **changes: Any) -> TrialConfig:
    """Six steps of both tasks on one thread, with checkpoints every two; `changes` by section."""
    values: dict[str, Any] = {
        "name": "tiny",
        "threads": 1,
        "device": "cpu",
        "backbone": {"name": str(backbone_dir), **LENGTHS},
        "data": {"train": [str(beir_dir)], "negatives": {"bm25_depth": 5, "model_depth": 5, "margin": "none"}},
        "tasks": {"retrieve": {"batch": 4, "negatives": 1}, "rerank": {"batch": 2, "negatives": 2}},
        "optim": {"steps": 6, "lr": 5e-3},
        "dev": {"queries": 4, "depth": 5},
        "checkpoint": {"every": 2},
    }
    for key, value in changes.items():
        values[key] = {**values[key], **value} if isinstance(value, Mapping) and key in values else value
    return TrialConfig.model_validate(values)


def tiny_unified(backbone: Path, plan: LayerPlan | None = None, **tasks: Mapping[str, Any]) -> UnifiedModel:
    """A fresh model of both tasks; `tasks` are the options of each."""
    options = {"retrieve": {}, "rerank": {}, **tasks}
    return build_model(ModelSpec(backbone=str(backbone), tasks=options, plan=plan or LayerPlan(), **LENGTHS))


def stirred(model: UnifiedModel, seed: int = 0, size: float = 0.05) -> UnifiedModel:
    """The model with all that is not backbone moved a little, so that every parameter matters and gets a gradient."""
    draw = torch.Generator().manual_seed(seed)
    for group, members in model.groups().items():
        for _, parameter in members if group != "backbone" else ():
            parameter.data.add_(torch.randn(parameter.shape, generator=draw) * size)
            parameter.requires_grad_(True)
    return model.train()


def gradients(model: UnifiedModel) -> dict[str, Tensor]:
    """Name → gradient, of the parameters that have one; and they have it no longer."""
    found = {name: p.grad for members in model.groups().values() for name, p in members if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def assert_close(a: Mapping[str, Tensor], b: Mapping[str, Tensor], tolerance: float) -> None:
    """The same names, and values that differ by at most `tolerance` times the largest of each tensor (or 1)."""
    assert a.keys() == b.keys()
    for name in a:
        off = (a[name] - b[name]).abs().max() / b[name].abs().max().clamp_min(1)
        assert off <= tolerance, f"{name} is off by {off:.2e}"


def tiny_examples(n: int, negatives: int = 2, seed: int = 0, teacher: bool = False) -> list[Example]:
    """Queries of two made-up words, documents of one to nine; the first is the positive."""
    draw = random.Random(seed)

    def text(words: int) -> str:
        return " ".join("".join(draw.choices("bcdfghklmnprst", k=2)) for _ in range(words))

    def example(i: int) -> Example:
        documents = [text(draw.randint(1, 9)) for _ in range(1 + negatives)]
        ids = tuple(f"q{i}-d{j}" for j in range(len(documents)))
        scores: Sequence[float] = [draw.uniform(-3, 3) for _ in documents]
        return Example(f"q{i}", text(2), ids, tuple(documents), (1.0, *(0.0 for _ in ids[1:])), tuple(scores) if teacher else None)

    return [example(i) for i in range(n)]
