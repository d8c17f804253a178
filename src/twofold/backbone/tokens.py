"""Text → token ids: the model's own template around one text or a pair, cut by tokens, with the cuts counted."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    if len(at) != 1 + pair:
        name = type(tokenizer).__name__
        raise ValueError(f"the tokenizer {name} does not keep the tokens of a text as they are alone: {ids} for {1 + pair} times {probe}")
    first, last, n = at[0], at[-1], len(probe)
    if not pair:
        return Template(ids[:first], [], ids[first + n :], (types[0], types[first], 0, 0, types[-1]))
    middle, suffix = ids[first + n : last], ids[last + n :]
    kinds = (types[0], types[first], types[first + n] if middle else 0, types[last], types[-1])
    return Template(ids[:first], middle, suffix, kinds)


class TextTokens:
    """Tokenises texts and pairs for one backbone.

    `prompts` are put before a text: keys "query" and "document" for one text, "pair_query" and "pair_document" inside a
    pair. A prompt and its text are tokenised as one string, as other tools do it. `append` is a special token to end with
    where the tokenizer adds none. Raises ValueError for lengths that leave no room for text.
    """

    def __init__(
        self, tokenizer: Any, *, max_length: int, pair_length: int, query_length: int, prompts: Mapping[str, str], append: str | None = None
    ) -> None:
        if unknown := sorted(set(prompts) - {"query", "document", "pair_query", "pair_document"}):
            raise ValueError(f"unknown prompts {unknown}: use query, document, pair_query, pair_document")
        self.tokenizer, self.prompts = tokenizer, dict(prompts)
        self.max_length, self.pair_length = max_length, pair_length
        self.single, self.double = template_of(tokenizer, pair=False), template_of(tokenizer, pair=True)
        if append is not None and not self.single.suffix:
            tail = [_special(tokenizer, append)]
            self.single = replace(self.single, suffix=tail)
            self.double = replace(self.double, suffix=tail)
        size = {name: len(self._ids([""], name, 10_000)[0][0]) for name in ("query", "document", "pair_query", "pair_document")}
        self.query_length = query_length + size["pair_query"]
        """Tokens that a pair's query keeps, its prompt included."""
        text_room = max_length - self.single.size - max(size["query"], size["document"])
        pair_room = pair_length - self.double.size - self.query_length - size["pair_document"]
        if min(text_room, pair_room, query_length) < 1:
            lengths = f"max_length {max_length}, pair_length {pair_length}, query_length {query_length}"
            raise ValueError(
                f"{lengths}: with template and prompts, room is left for {text_room} tokens of a text, {pair_room} of a document"
            )

    def with_lengths(self, max_length: int, pair_length: int) -> TextTokens:
        """The same tokenizer and prompts with other lengths."""
        twin = copy.copy(self)
        twin.max_length, twin.pair_length = max_length, pair_length
        return twin

    def texts(self, texts: Sequence[str], prompt: str | None = None) -> Pack:
        """One segment per text: template, prompt, text. An empty text keeps the template, or one padding token without one."""
        segments, truncated = [], 0
        for ids, cut in self._ids(texts, prompt, self.max_length - self.single.size):
            truncated += cut
            segments.append(self._segment(self.single, ids, []))
        return make_pack(segments, truncated)

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> Pack:
        """One segment per (query, document). The query keeps up to `query_length` tokens, the document what is left of `pair_length`."""
        queries = self._ids([query for query, _ in pairs], "pair_query", self.query_length)
        documents = self._ids([document for _, document in pairs], "pair_document", self.pair_length)
        return self._join(queries, documents)

    def pair_ids(self, queries: Sequence[Ids], documents: Sequence[Ids]) -> Pack:
        """`pairs` for texts that others have tokenised, without template and not cut: the prompts' ids are put before theirs."""
        first, second = (self._ids([""], name, 10_000)[0][0] for name in ("pair_query", "pair_document"))
        cut = [((first + ids)[: self.query_length], len(first) + len(ids) > self.query_length) for ids in queries]
        return self._join(cut, [(second + ids, False) for ids in documents])

    def _join(self, queries: Sequence[tuple[Ids, bool]], documents: Sequence[tuple[Ids, bool]]) -> Pack:
        segments, truncated = [], 0
        for (query, query_cut), (document, document_cut) in zip(queries, documents, strict=True):
            room = self.pair_length - self.double.size - len(query)
            truncated += query_cut or document_cut or len(document) > room
            segments.append(self._segment(self.double, query, document[:room]))
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

    def _ids(self, texts: Sequence[str], prompt: str | None, tokens: int) -> list[tuple[Ids, bool]]:
        """Up to `tokens` ids of each text behind its prompt, no specials, and whether something was cut: characters first, then tokens.

        Raises ValueError for a lone surrogate, which tokenizers answer with something obscure.
        """
        before, limit = self.prompts.get(prompt or "", ""), (tokens + 1) * CHARACTERS_PER_TOKEN
        cut = [before + text[:limit] for text in texts]
        if not cut:
            return []
        try:
            "".join(cut).encode()
        except UnicodeEncodeError:
            i = next(i for i, text in enumerate(cut) if any("\ud800" <= character <= "\udfff" for character in text))
            raise ValueError(f"text {i} holds a lone surrogate: it is not valid Unicode") from None
        encoded: list[Ids] = self.tokenizer(cut, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        return [(ids[:tokens], len(ids) > tokens or len(text) > limit) for ids, text in zip(encoded, texts, strict=True)]


def _special(tokenizer: Any, token: str) -> int:
    """The id of a token that the tokenizer knows. Raises ValueError where it does not."""
    found = tokenizer.convert_tokens_to_ids(token)
    if found is None or (found == tokenizer.unk_token_id and token != tokenizer.unk_token):
        raise ValueError(f"the tokenizer {type(tokenizer).__name__} has no token {token!r} to append")
    return int(found)
