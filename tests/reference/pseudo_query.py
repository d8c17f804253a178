"""E2Rank's scores the slow way: every text through the plain Hugging Face model by itself, strings put together by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def vector(model: Any, ids: Sequence[int]) -> Tensor:
    """Mean of the last hidden states of one text, made unit length."""
    with torch.no_grad():
        return F.normalize(model(input_ids=torch.tensor([list(ids)])).last_hidden_state[0].mean(0), dim=0)


def prompt_ids(tokenizer: Any, query: str, documents: Sequence[str], document_tokens: int) -> list[int]:
    """[CLS] Documents: [1] … [2] … Query: … [SEP], each candidate cut to so many tokens, its number included."""

    def plain(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    ids = plain("Documents:")
    for number, document in enumerate(documents, start=1):
        ids += plain(f"[{number}] {document}")[:document_tokens]
    return [tokenizer.cls_token_id, *ids, *plain(f"Query: {query}"), tokenizer.sep_token_id]


def scores(model: Any, tokenizer: Any, query: str, documents: Sequence[str], k: int, document_tokens: int, scale: float) -> list[float]:
    """scale · cos(pseudo-query, document) for each document of one list."""
    pseudo_D = vector(model, prompt_ids(tokenizer, query, documents[:k], document_tokens))
    return [scale * float(pseudo_D @ vector(model, tokenizer(document)["input_ids"])) for document in documents]


def rocchio(model: Any, tokenizer: Any, query: str, documents: Sequence[str], k: int, a: float, b: float) -> list[float]:
    """cos(a · q + b · mean of the first k documents, document)."""
    own = [vector(model, tokenizer(document)["input_ids"]) for document in documents]
    moved_D = F.normalize(a * vector(model, tokenizer(query)["input_ids"]) + b * torch.stack(own[:k]).mean(0), dim=0)
    return [float(moved_D @ own_D) for own_D in own]
