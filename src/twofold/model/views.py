"""The files by which other libraries know a saved folder: the tokenizer, and the three JSON views of sentence-transformers.

Only `sentence_transformers.*` types are named, so nobody has to trust the folder's code: it has none.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from twofold.backbone.tokens import TextTokens
from twofold.model.unified import UnifiedModel

CONFIG = "config.json"
MODEL_TYPE = "twofold"
POOLING = {"mean": "mean", "text": "mean", "first": "cls", "last": "lasttoken"}
"""Our name of a pooling → sentence-transformers' name. For "text" the prompt is left out there, and the template's states are 0."""
MODULES = (
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer", "kwargs": ["task"]},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
)
MACHINE = ("name_or_path", "vocab_file", "tokenizer_file", "is_local", "local_files_only", "auto_map")
"""What a tokenizer's config may say of the machine that wrote it, or of code."""


def write_views(folder: Path, model: UnifiedModel, facts: dict[str, Any]) -> None:
    """Writes config.json with `facts` under "twofold", the tokenizer, and what `SentenceTransformer(folder)` reads.

    A model that does not retrieve gets no view as an embedder.
    """
    write_json(folder / CONFIG, config_of(model, facts))
    write_tokenizer(folder, model)
    if "retrieve" not in model.tasks:
        return
    prompts = {name: model.tokens.prompts.get(name, "") for name in ("query", "document")}
    view = {"model_type": "SentenceTransformer", "prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    write_json(folder / "modules.json", MODULES)
    write_json(folder / "config_sentence_transformers.json", view)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": model.tokens.max_length, "do_lower_case": False})
    pooling = {"word_embedding_dimension": model.width, "include_prompt": model.backbone.pooling != "text"}
    modes = {"cls": "cls_token", "mean": "mean_tokens", "lasttoken": "lasttoken"}
    pooling |= {f"pooling_mode_{key}": POOLING[model.backbone.pooling] == mode for mode, key in modes.items()}
    write_json(folder / "1_Pooling" / CONFIG, pooling)


def config_of(model: UnifiedModel, facts: dict[str, Any]) -> dict[str, Any]:
    """What transformers reads. Not an architecture "…ForCausalLM", which CrossEncoder would ask for yes and no; and without the
    named activation CrossEncoder would put a sigmoid on the score."""
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["TwofoldModel"],
        "hidden_size": model.width,
        "id2label": {"0": "relevance"},
        "label2id": {"relevance": 0},
        "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"},
        "twofold": facts,
    }


def write_tokenizer(folder: Path, model: UnifiedModel) -> None:
    """The tokenizer's own files, with settings of ours.

    `model_max_length` leaves every pair whole that could still matter: `CrossEncoder` cuts the longer text first and to this
    length, and the model then cuts the query and the document as `TextTokens.pairs` does. Where a pair's two texts touch
    without a token between them, the tokenizer is told to say where the second begins. Without a padding token nobody else
    could make a batch: it is the last token then, which the attention mask hides. A chat template is left out: `CrossEncoder` would
    put it around every pair, and what stands around a pair here are the prompts.
    """
    tokenizer = copy.copy(model.tokens.tokenizer)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = {key: value for key, value in json.loads(path.read_text(encoding="utf-8")).items() if key not in MACHINE}
    settings["model_max_length"] = longest_input(model.tokens) if "rerank" in model.tasks else model.tokens.max_length
    if tokenizer.pad_token is None:
        settings["pad_token"] = tokenizer.eos_token or tokenizer.unk_token
    if needs_types(model):
        settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    write_json(path, settings)


def longest_input(tokens: TextTokens) -> int:
    """Tokens of a pair of which both texts could fill the model alone."""
    return 2 * tokens.pair_length + tokens.double.size


def needs_types(model: UnifiedModel) -> bool:
    """Whether only token types could tell a pair's texts apart, and the backbone, which has none, would not see them."""
    pair = model.tokens.double
    blind = (getattr(model.backbone.config, "type_vocab_size", 0) or 0) < 2
    return blind and not pair.middle and pair.types[1] == pair.types[3]


def readable(folder: Path) -> None:
    """Gives weights the permissions of the other files: safetensors keeps them to their owner."""
    mode = next(folder.rglob("*.json")).stat().st_mode
    for path in folder.rglob("*.safetensors"):
        path.chmod(mode)


def write_json(path: Path, content: Any) -> None:
    """Readable JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
