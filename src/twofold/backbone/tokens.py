"""Text → token ids: the model's own template around one text or a pair, cut by tokens, with the cuts counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twofold.backbone.packed import Pack, make_pack

CHARACTERS_PER_TOKEN = 16
"""A text is cut to this many characters per token before the tokenizer sees it: ten megabytes would cost it ten seconds and a gigabyte."""

Ids = list[int]


@dataclass(frozen=True)
class Template:
    """What the tokenizer puts around one text (middle empty) or a pair, and its token types."""

    prefix: Ids
    middle: Ids
    suffix: Ids
    types: tuple[int, int, int, int, int]
    """Token types of prefix, first text, middle, second text, suffix."""

    @property
    def size(self) -> int:
        """Tokens that the template itself takes."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)


def template_of(tokenizer: Any, pair: bool) -> Template:
    """Reads the template off the tokenizer by encoding a probe word. Raises ValueError where the tokenizer hides the word."""
    probe = tokenizer.encode("a", add_special_tokens=False)
    encoded = tokenizer("a", "a" if pair else None, add_special_tokens=True)
    ids, types = list(encoded["input_ids"]), list(encoded.get("token_type_ids", [0] * len(encoded["input_ids"])))
    at = [i for i in range(len(ids) - len(probe) + 1) if ids[i : i + len(probe)] == probe]
    if not at:
        raise ValueError(f"the tokenizer {type(tokenizer).__name__} does not keep the tokens of a text as they are alone: {ids} for {probe}")
    first, last, n = at[0], at[-1], len(probe)
    if not pair:
        return Template(ids[:first], [], ids[first + n :], (0, 0, 0, 0, 0))
    middle, suffix = ids[first + n : last], ids[last + n :]
    kinds = (types[0], types[first], types[first + n] if middle else 0, types[last], types[-1])
    return Template(ids[:first], middle, suffix, kinds)


class TextTokens:
    """Tokenises texts and pairs for one backbone.

    `prompts` are put before a text: keys "query" and "document" for one text, "pair_query" and "pair_document" inside a
    pair. Raises ValueError for a length that leaves no room for text.
    """

    def __init__(self, tokenizer: Any, *, max_length: int, pair_length: int, query_length: int, prompts: Mapping[str, str], append: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.max_length, self.pair_length, self.query_length = max_length, pair_length, query_length
        self.single, self.double = template_of(tokenizer, pair=False), template_of(tokenizer, pair=True)
        if append is not None and not self.single.suffix:
            tail = [tokenizer.convert_tokens_to_ids(append)]
            self.single = Template(self.single.prefix, [], tail, self.single.types)
            self.double = Template(self.double.prefix, self.double.middle, tail, self.double.types)
        if unknown := sorted(set(prompts) - {"query", "document", "pair_query", "pair_document"}):
            raise ValueError(f"unknown prompts {unknown}: use query, document, pair_query, pair_document")
        self.prompts = {name: text for name, text in prompts.items() if text}
        if self.max_length <= self.single.size + 2 or self.pair_length <= self.double.size + 4 or self.query_length < 1:
            raise ValueError(f"max_length {max_length}, pair_length {pair_length}, query_length {query_length}: no room for text")

    def texts(self, texts: Sequence[str], prompt: str | None = None) -> Pack:
        """One segment per text: template, prompt, text. An empty text keeps the template, or one padding token without one.

        Prompt and text are tokenised as one string, as everybody does who opens a saved folder.
        """
        before = self.prompts.get(prompt or "", "")
        room = self.max_length - self.single.size
        segments, truncated = [], 0
        for ids in self._ids([before + text for text in texts] if before else texts, room):
            truncated += len(ids) > room
            segments.append(self._segment(self.single, ids[:room], []))
        return make_pack(segments, truncated)

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> Pack:
        """One segment per (query, document). The query keeps up to `query_length` tokens, the document what is left of `pair_length`."""
        queries = self._ids([query for query, _ in pairs], self.query_length)
        documents = self._ids([document for _, document in pairs], self.pair_length)
        return self.pair_ids(queries, documents)

    def pair_ids(self, queries: Sequence[Ids], documents: Sequence[Ids]) -> Pack:
        """`pairs` for queries and documents that are token ids already, without a template and not yet cut."""
        first, second = (self._ids([self.prompts.get(name, "")], 10_000)[0] for name in ("pair_query", "pair_document"))
        segments, truncated = [], 0
        for query, document in zip(queries, documents, strict=True):
            room = self.pair_length - self.double.size - len(first) - len(second) - min(len(query), self.query_length)
            truncated += len(query) > self.query_length or len(document) > room
            segments.append(self._segment(self.double, first + query[: self.query_length], second + document[: max(room, 1)]))
        return make_pack(segments, truncated)

    def _segment(self, template: Template, first: Ids, second: Ids) -> tuple[Ids, Ids, Ids]:
        pieces = (template.prefix, first, template.middle, second, template.suffix)
        ids = [token for piece in pieces for token in piece]
        if not ids:
            ids, pieces = [self._filler()], ([self._filler()], [], [], [], [])
        types = [kind for piece, kind in zip(pieces, template.types, strict=True) for _ in piece]
        parts = [part for piece, part in zip(pieces, (0, 1, 0, 2, 0), strict=True) for _ in piece]
        return ids, types, parts

    def _filler(self) -> int:
        token = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        return int(token or 0)

    def _ids(self, texts: Sequence[str], tokens: int) -> list[Ids]:
        """Ids without specials; the text is cut by characters first, one token of surplus kept so that the cut is seen."""
        limit = (tokens + 1) * CHARACTERS_PER_TOKEN
        cut = [text[:limit] for text in texts]
        if not cut:
            return []
        encoded: list[Ids] = self.tokenizer(cut, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        return encoded
