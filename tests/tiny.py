"""Tiny random models, tokenizers and mixtures, made in memory in milliseconds.

Shapes: as in `twofold.core.routing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedTokenizerFast

from twofold import plugins
from twofold.backbone.backbone import Backbone
from twofold.backbone.load import extras, without_dropout
from twofold.backbone.packed import Pack, make_pack
from twofold.core.inject import LayerPlan, inject, mixtures
from twofold.core.routing import Bank, Roster, Router

VOCABULARY = 120
WINDOW = 5
_SIZE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
_DECODER: dict[str, Any] = {**_SIZE, "num_key_value_heads": 2}
_HEADS: dict[str, Any] = {**_DECODER, "head_dim": 8}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", _SIZE),
    "distilbert": (
        "DistilBertConfig",
        {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64},
    ),
    "nomic_bert": ("NomicBertConfig", _SIZE),
    "eurobert": ("EuroBertConfig", _DECODER),
    "llama": ("LlamaConfig", _DECODER),
    "qwen3": ("Qwen3Config", _HEADS),
    "roberta": ("RobertaConfig", {**_SIZE, "pad_token_id": 1, "type_vocab_size": 1}),
    "xlm_roberta": ("XLMRobertaConfig", {**_SIZE, "pad_token_id": 1, "type_vocab_size": 1}),
    "modernbert": (
        "ModernBertConfig",
        {**_SIZE, "num_hidden_layers": 3, "local_attention": 8, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
    ),
    "qwen3_window": ("Qwen3Config", {**_HEADS, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}),
    "gemma3": ("Gemma3TextConfig", {**_HEADS, "sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}),
    "gemma3_bidirectional": ("Gemma3TextConfig", {**_HEADS, "sliding_window": WINDOW, "use_bidirectional_attention": True}),
    "gemma2_softcap": ("Gemma2Config", {**_HEADS, "sliding_window": WINDOW, "attn_logit_softcapping": 2.0}),
    "mistral_window": ("MistralConfig", {**_DECODER, "sliding_window": WINDOW}),
}
"""The families that packing is proved exact for."""
PADDED_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "mpnet": ("MPNetConfig", {**_SIZE, "pad_token_id": 1}),
    "deberta_v2": ("DebertaV2Config", {**_SIZE, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}),
}
"""The families that ignore the registered attention function."""


def tiny_model(family: str = "bert", seed: int = 0, **changes: Any) -> nn.Module:
    """A random model of a family, without dropout; its weights are widened, so that nothing is lost in a near-constant output."""
    name, options = {**FAMILIES, **PADDED_FAMILIES}[family]
    config = getattr(transformers, name)(**{**options, **changes})
    without_dropout(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = AutoModel.from_config(config, **extras(config))
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.data.mul_(4)
    return model.eval()


def tiny_pack(lengths: Sequence[int], seed: int = 0, types: bool = False) -> Pack:
    """Segments of random tokens, in this order for the caller; with `types`, the second half of each is a pair's document."""
    draw = torch.Generator().manual_seed(seed)
    segments = []
    for length in lengths:
        ids = torch.randint(5, VOCABULARY - 1, (length,), generator=draw).tolist()
        second = length // 2 if types else 0
        segments.append((ids, [0] * (length - second) + [1] * second, [1] * (length - second) + [2] * second))
    return make_pack(segments)


def add_experts(
    model: nn.Module, plan: LayerPlan, tasks: tuple[str, ...] = ("retrieve", "rerank"), seed: int = 0, noise: float = 0.3
) -> None:
    """Freezes `model`, injects the plan and, unless `noise` is 0, moves every B off zero, the same for an expert in whatever plan."""
    model.requires_grad_(False)

    def bank(d_in: int, d_out: int, ranks: Mapping[str, int], scales: Mapping[str, float], layer: str) -> Bank:
        given = {"d_in": d_in, "d_out": d_out, "ranks": ranks, "scales": scales, "layer": layer, "seed": seed}
        built: Bank = plugins.build_plugin("banks", plan.bank, plan.bank_options, **given)
        return built

    def router(d_in: int, key: str, roster: Roster, bank: Bank) -> Router:
        given = {"d_in": d_in, "roster": roster, "tasks": tasks, "seed": seed, "key": key, "bank": bank}
        built: Router = plugins.build_plugin("routers", plan.router, plan.router_options, **given)
        return built

    inject(model, plan, tasks, bank, router)
    for i, layer in enumerate(mixtures(model)):
        for name, parameter in layer.bank.named_parameters():
            if noise and name.startswith("b."):
                draw = torch.Generator().manual_seed(sum(name.encode()) * 1000 + i)
                parameter.data.copy_(torch.randn(parameter.shape, generator=draw) * noise)


def tiny_backbone(
    family: str = "bert", plan: LayerPlan | None = None, tasks: tuple[str, ...] = ("retrieve", "rerank"), **options: Any
) -> Backbone:
    """A backbone around a tiny model, with the plan's experts if there is one."""
    backbone = Backbone(tiny_model(family), **options)
    if plan is not None:
        add_experts(backbone.model, plan, tasks)
    return backbone


WORDS = ("a", "red", "fox", "runs", "over", "the", "lazy", "dog", "query", "document", ":", "what", "is", "it")


def bert_tokenizer() -> PreTrainedTokenizerFast:
    """[CLS] text [SEP], or [CLS] text [SEP] text [SEP] with token types; whole words and single characters."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *"bcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
    pieces.append("[MASK]")
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **names)


def roberta_tokenizer() -> PreTrainedTokenizerFast:
    """<s> text </s>, or <s> text </s></s> text </s> without token types; bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    names = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=["input_ids", "attention_mask"], **names)


def llama_tokenizer(bos: bool = True) -> PreTrainedTokenizerFast:
    """<s> text, or nothing around it; words marked with ▁ and characters, no padding token."""
    pieces = ["<unk>", "<s>", "</s>", "▁", *(f"▁{word}" for word in WORDS), *sorted(set("".join(WORDS)))]
    scored = [(piece, -10.0 if len(piece) == 1 else -2.0) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """Nothing around a text, and the special tokens of a chat; bytes, and the words yes and no, as Qwen's and SmolLM2's are."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), "ye", "yes", "no", "Ye", "Yes", "No"]
    merges = [("y", "e"), ("ye", "s"), ("n", "o"), ("Y", "e"), ("Ye", "s"), ("N", "o")]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=["input_ids", "attention_mask"], **names)
    turn = "'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n'"
    made.chat_template = "{% for message in messages %}{{ " + turn + " }}{% endfor %}"
    return made


def write_decoder(folder: Path, family: str, tie: bool = True, layers: int = 2) -> nn.Module:
    """Saves a random chat model as transformers does, its language model head included, and returns it."""
    name, options = FAMILIES[family]
    tokenizer = chat_tokenizer()
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": 512, "num_hidden_layers": layers, "tie_word_embeddings": tie}
    config = getattr(transformers, name)(**{**options, **sizes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.data.mul_(4)
    hub_model: Any = model.eval()
    hub_model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model
