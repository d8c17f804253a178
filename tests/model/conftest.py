"""Tiny models with experts that do something, made from backbones on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from tests import tiny
from twofold.core.inject import Expert, LayerPlan
from twofold.model.build import build_model
from twofold.model.spec import ModelSpec
from twofold.model.unified import UnifiedModel
from twofold.prompts import prompts_of

MakeModel = Callable[..., UnifiedModel]
TOKENIZERS = {
    "bert": tiny.bert_tokenizer,
    "roberta": tiny.roberta_tokenizer,
    "llama": tiny.llama_tokenizer,
    "qwen3": lambda: tiny.llama_tokenizer(bos=False),
}
EXPERTS = (Expert("embedding", 2), Expert("reranking", 3), Expert("shared", 2, ranks={"layer.0|layers.0": 4}))
SEES = {"retrieve": ("embedding", "shared"), "rerank": ("reranking", "shared")}
PLANS = {
    "none": LayerPlan(),
    "soft": LayerPlan(EXPERTS, router="soft"),
    "by_task": LayerPlan(EXPERTS, SEES, router="by_task"),
    "sides": LayerPlan(
        (*EXPERTS[:2], Expert("passages", 2)),
        {
            "retrieve": ("embedding", "passages"),
            "retrieve/query": ("embedding",),
            "retrieve/document": ("passages",),
            "rerank": ("reranking",),
        },
        router="by_task",
    ),
    "uniform": LayerPlan(EXPERTS[2:]),
    "task_gate": LayerPlan(EXPERTS, router="task_gate", scope="block"),
    "topk": LayerPlan(EXPERTS, router="topk", router_options={"k": 2}),
}
CHATS = {"chat_llama": "llama", "chat_qwen3": "qwen3"}
"""Decoders with a tokenizer of bytes and a language model head."""
YES_NO: dict[str, dict[str, Any]] = {"retrieve": {}, "rerank": {"head": "yes_no", "loss": "bce"}}
CHAT: dict[str, Any] = {"tasks": YES_NO, "max_length": 48, "pair_length": 200, "query_length": 20, "prompts": prompts_of("chatml")}
BOTH: dict[str, dict[str, Any]] = {"retrieve": {}, "rerank": {"head": "both"}}


@pytest.fixture(scope="session")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Family → the folder of a tiny backbone with its tokenizer."""
    folder = tmp_path_factory.mktemp("backbones")

    def find(family: str) -> str:
        path = folder / family
        if family in CHATS and not path.is_dir():
            tiny.write_decoder(path, CHATS[family])
        if not path.is_dir():
            tokenizer = TOKENIZERS[family]()
            model = tiny.tiny_model(family, vocab_size=len(tokenizer))
            assert isinstance(model, PreTrainedModel)
            model.save_pretrained(path)
            tokenizer.save_pretrained(path)
        return str(path)

    return find


@pytest.fixture
def make_model(backbones: Callable[[str], str]) -> MakeModel:
    """`make_model("soft", family="bert", **spec)`: a model by the name of its plan, its experts and heads moved off their start."""

    def make(plan: str = "soft", family: str = "bert", *, noise: float = 0.2, **options: Any) -> UnifiedModel:
        settings = {"tasks": BOTH, "max_length": 24, "pair_length": 40, "query_length": 12, **options}
        model = build_model(ModelSpec(backbones(family), plan=PLANS[plan], **settings))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            for group, members in model.groups().items():
                for _, parameter in members:
                    if group != "backbone":
                        parameter.data.add_(torch.randn_like(parameter) * noise)
        return model.eval()

    return make
