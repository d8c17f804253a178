"""What stands around a text or a pair: the parts by name, and the templates that well-known models were trained with.

A decoder is read off at its last token, so what stands behind a text matters as much as what stands before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from twofold.errors import ConfigError

Part = Literal["query", "document", "append", "pair_prefix", "pair_query", "pair_between", "pair_document", "pair_suffix"]
"""`query` and `document` stand before one text, `append` is the token that a text ends with where its tokenizer adds none. A pair
is prefix, query, between, document, suffix; `pair_query` and `pair_document` stand before its two texts."""

PARTS: tuple[str, ...] = get_args(Part)
TemplateName = Literal["plain", "qwen3", "chatml"]
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
"""What templates with an instruction say of the task unless told otherwise: the sentence that Qwen3's embedder and reranker know."""

TEMPLATES: dict[TemplateName, dict[Part, str]] = {
    "plain": {},
    # Qwen3-Embedding and Qwen3-Reranker (arXiv 2506.05176, Apache-2.0): these very characters, or their scores mean nothing.
    "qwen3": {
        "query": "Instruct: {instruction}\nQuery:",
        "append": "<|endoftext|>",
        "pair_prefix": "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n',
        "pair_query": "<Instruct>: {instruction}\n<Query>: ",
        "pair_between": "\n",
        "pair_document": "<Document>: ",
        "pair_suffix": "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    },
    # Ours, for decoders that chat in ChatML and were not trained to rank (SmolLM2): short, since every pair pays for it.
    "chatml": {
        "query": "query: ",
        "append": "<|im_end|>",
        "pair_prefix": "<|im_start|>user\n",
        "pair_query": "Query: ",
        "pair_between": "\n",
        "pair_document": "Document: ",
        "pair_suffix": "\nDoes the document answer the query, yes or no?<|im_end|>\n<|im_start|>assistant\n",
    },
}


def prompts_of(template: TemplateName, instruction: str | None = None, own: Mapping[Part, str] | None = None) -> dict[str, str]:
    """Part → text: the template's, `own` in their place, `{instruction}` filled in; an empty part is none.

    Raises ConfigError for an instruction that no part says.
    """
    parts = {**TEMPLATES[template], **(own or {})}
    if instruction is not None and not any("{instruction}" in text for text in parts.values()):
        raise ConfigError(f"instruction {instruction!r}: no part of the template {template!r} says it; write {{instruction}} into a prompt")
    filled = {name: text.replace("{instruction}", instruction or INSTRUCTION) for name, text in parts.items()}
    return {name: text for name, text in filled.items() if text}
