"""Text → token ids: the model's own template around one text or a pair, cut by tokens, with the cuts counted."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokenizers import decoders, processors

from twofold.backbone.packed import Pack, make_pack
from twofold.errors import ConfigError
from twofold.prompts import PARTS
from twofold.records import Place

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

    `prompts` stand around texts and pairs; `twofold.prompts` names them. A prompt and its text are tokenised as one string, as
    other tools do it; `pair_prefix` and `pair_suffix` are tokenised alone and never cut: they take the place of the tokenizer's
    own template, but for its first tokens. `append` is a special token to end with where the tokenizer adds none. Raises
    ValueError for unknown prompts, and ConfigError for lengths that leave no room for text.
    """

    def __init__(self, tokenizer: Any, *, max_length: int, pair_length: int, query_length: int, prompts: Mapping[str, str]) -> None:
        if unknown := sorted(set(prompts) - set(PARTS)):
            raise ValueError(f"unknown prompts {unknown}: use {', '.join(PARTS)}")
        self.tokenizer = ending_with(tokenizer, prompts["append"]) if prompts.get("append") else tokenizer
        self.prompts = dict(prompts)
        self.max_length, self.pair_length = max_length, pair_length
        self.single, self.double = (template_of(self.tokenizer, pair) for pair in (False, True))
        self.frame = self._frame()
        """What stands around a pair, prompts aside; `double` is what the tokenizer alone would put there."""
        self.query_length = query_length + len(self._alone("pair_query")) + len(self._alone("pair_between"))
        """Tokens that a pair's query keeps, its prompt and what follows it included."""
        self._check_room()

    def with_lengths(self, max_length: int, pair_length: int) -> TextTokens:
        """The same tokenizer and prompts with other lengths. Raises as making it does."""
        twin = copy.copy(self)
        twin.max_length, twin.pair_length = max_length, pair_length
        twin._check_room()
        return twin

    def texts(self, texts: Sequence[str], prompt: str | None = None) -> Pack:
        """One segment per text: template, prompt, text. An empty text keeps the template, or one padding token without one.

        Of a prompt as many tokens count as it has by itself; they are no part of the text.
        """
        segments, truncated, before = [], 0, len(self._alone(prompt or ""))
        for ids, cut in self._ids(texts, prompt, self.max_length - self.single.size):
            truncated += cut
            segments.append(self._segment(self.single, ids, []))
            start = len(self.single.prefix)
            segments[-1][2][start : start + before] = [0] * min(before, len(ids))
        return make_pack(segments, truncated)

    def text_ids(self, rows: Sequence[Ids], prompt: str | None = None) -> Pack:
        """`texts` for texts that others have tokenised, without template and not cut; the prompt's ids are joined to them.

        Raises ValueError for an id that the tokenizer does not have.
        """
        before, size = self._alone(prompt or ""), len(self.tokenizer)
        room = self.max_length - self.single.size - len(before)
        segments, truncated = [], 0
        for i, ids in enumerate(rows):
            if wrong := [token for token in ids if not 0 <= token < size]:
                raise ValueError(f"text {i} holds the token {wrong[0]}: this model's tokenizer has 0 to {size - 1}")
            truncated += len(ids) > room
            segments.append(self._segment(self.single, before + ids[:room], []))
            start = len(self.single.prefix)
            segments[-1][2][start : start + len(before)] = [0] * len(before)
        return make_pack(segments, truncated)

    def joined(self, rows: Sequence[Sequence[tuple[str, int | None]]]) -> Pack:
        """One segment per row of (text, most tokens; None for all): each text cut by itself, then put together in one text's template."""
        segments, truncated = [], 0
        for row in rows:
            pieces = [self._ids([text], None, len(text.encode()) if most is None else most)[0] for text, most in row]
            segments.append(self._segment(self.single, [token for ids, _ in pieces for token in ids], []))
            truncated += any(cut for _, cut in pieces)
        return make_pack(segments, truncated)

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> Pack:
        """One segment per (query, document). The query keeps up to `query_length` tokens, the document what is left of `pair_length`."""
        queries = self._ids([query for query, _ in pairs], "pair_query", self.query_length, "pair_between")
        documents = self._ids([document for _, document in pairs], "pair_document", self.pair_length)
        return self._join(queries, documents)

    def places(self, documents: Sequence[str]) -> list[list[Place]]:
        """The characters that each token of a pair's document stands for, as `pairs` cuts it, but for the end; (0, 0) for a prompt's.

        Raises ConfigError for a tokenizer that cannot tell.
        """
        if not documents:
            return []
        before, limit = self.prompts.get("pair_document", ""), (self.pair_length + 1) * CHARACTERS_PER_TOKEN
        if not getattr(self.tokenizer, "is_fast", False):
            raise ConfigError(f"the tokenizer {type(self.tokenizer).__name__} does not tell where its tokens stand: use a fast one")
        texts, n = [before + document[:limit] for document in documents], len(before)
        encoded = self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False, return_offsets_mapping=True, verbose=False)
        return [[(max(start - n, 0), max(end - n, 0)) for start, end in row] for row in encoded["offset_mapping"]]

    def pair_ids(self, queries: Sequence[Ids], documents: Sequence[Ids]) -> Pack:
        """`pairs` for texts that others have tokenised, without template and not cut.

        With prompts, tokens of bytes are made text again, since a prompt and its text are tokenised as one; to other tokens the
        prompts' ids are joined, whose words do not reach across.
        """
        first, between, second = (self._alone(name) for name in ("pair_query", "pair_between", "pair_document"))
        if (first or between or second) and spells_bytes(self.tokenizer):
            texts = [[self.tokenizer.decode(ids, clean_up_tokenization_spaces=False) for ids in side] for side in (queries, documents)]
            return self.pairs(list(zip(*texts, strict=True)))
        room = self.query_length - len(between)
        cut = [((first + ids)[:room] + between, len(first) + len(ids) > room) for ids in queries]
        return self._join(cut, [(second + ids, False) for ids in documents])

    def _check_room(self) -> None:
        size = {name: len(self._alone(name)) for name in ("query", "document", "pair_query", "pair_between", "pair_document")}
        query_room = self.query_length - size["pair_query"] - size["pair_between"]
        text_room = self.max_length - self.single.size - max(size["query"], size["document"])
        pair_room = self.pair_length - self.frame.size - self.query_length - size["pair_document"]
        if min(text_room, pair_room, query_room) < 1:
            lengths = f"max_length {self.max_length}, pair_length {self.pair_length}, query_length {query_room}"
            raise ConfigError(
                f"{lengths}: with template and prompts, room is left for {text_room} tokens of a text, {pair_room} of a document"
            )

    def _frame(self) -> Template:
        """The tokenizer's template of a pair, or the chat that the prompts put in its place behind its first tokens."""
        prefix, suffix = self._alone("pair_prefix"), self._alone("pair_suffix")
        if not prefix and not suffix:
            return self.double
        return replace(self.double, prefix=self.double.prefix + prefix, middle=[], suffix=suffix or self.double.suffix)

    def _join(self, queries: Sequence[tuple[Ids, bool]], documents: Sequence[tuple[Ids, bool]]) -> Pack:
        segments, truncated = [], 0
        for (query, query_cut), (document, document_cut) in zip(queries, documents, strict=True):
            room = self.pair_length - self.frame.size - len(query)
            truncated += query_cut or document_cut or len(document) > room
            segments.append(self._segment(self.frame, query, document[:room]))
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

    def _ids(self, texts: Sequence[str], prompt: str | None, tokens: int, after: str = "") -> list[tuple[Ids, bool]]:
        """Up to `tokens` ids of each text between its prompts, no specials, and whether something was cut of the text: characters
        first, then tokens. Raises ValueError for a lone surrogate, which tokenizers answer with something obscure.
        """
        before, behind = self.prompts.get(prompt or "", ""), self.prompts.get(after, "")
        limit, tail = (tokens + 1) * CHARACTERS_PER_TOKEN, self._alone(after)
        cut = [text[:limit] for text in texts]
        if not cut:
            return []
        try:
            "".join(cut).encode()
        except UnicodeEncodeError:
            i = next(i for i, text in enumerate(cut) if any("\ud800" <= character <= "\udfff" for character in text))
            raise ValueError(f"text {i} holds a lone surrogate: it is not valid Unicode") from None
        rows = []
        for ids, short, text in zip(self._encode([before + text + behind for text in cut]), cut, texts, strict=True):
            over = len(ids) > tokens
            kept = self._encode([before + short])[0][: tokens - len(tail)] + tail if over and tail else ids[:tokens]
            rows.append((kept, over or len(text) > limit))
        return rows

    def _alone(self, name: str) -> Ids:
        """A prompt's own ids."""
        return self._encode([self.prompts[name]])[0] if self.prompts.get(name) else []

    def _encode(self, texts: list[str]) -> list[Ids]:
        found: list[Ids] = self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        return found


def ending_with(tokenizer: Any, token: str) -> Any:
    """A copy of the tokenizer that ends texts and pairs with a special token; the same where it ends them with one already.

    The copy is what is saved, so that whoever opens the folder ends texts as training did. Raises ValueError for a token that
    the tokenizer does not know, and for a tokenizer whose template cannot be changed.
    """
    end, (single, double) = _special(tokenizer, token), (template_of(tokenizer, pair) for pair in (False, True))
    if single.suffix:
        return tokenizer
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ValueError(f"the tokenizer {type(tokenizer).__name__} cannot be told to end texts with {token!r}: use a fast one")
    prefix, middle = (tokenizer.convert_ids_to_tokens(ids) for ids in (double.prefix, double.middle))
    first = tokenizer.convert_ids_to_tokens(single.prefix)
    special = {word: tokenizer.convert_tokens_to_ids(word) for word in (*first, *prefix, *middle)} | {token: end}
    twin = copy.deepcopy(tokenizer)
    twin.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=[*first, "$A", token], pair=[*prefix, "$A", *middle, "$B:1", token], special_tokens=list(special.items())
    )
    return twin


def spells_bytes(tokenizer: Any) -> bool:
    """Whether a tokenizer's tokens are of bytes, so that decoding gives back the very text."""
    return isinstance(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None), decoders.ByteLevel)


def token_of(tokenizer: Any, word: str) -> int:
    """The id of a word that is one token. Raises ConfigError where it is none or several."""
    ids = tokenizer.encode(word, add_special_tokens=False)
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise ConfigError(f"the word {word!r} is not one token of {type(tokenizer).__name__} but {ids}: choose another")
    return int(ids[0])


def _special(tokenizer: Any, token: str) -> int:
    """The id of a token that the tokenizer knows. Raises ValueError where it does not."""
    found = tokenizer.convert_tokens_to_ids(token)
    if found is None or (found == tokenizer.unk_token_id and token != tokenizer.unk_token):
        raise ValueError(f"the tokenizer {type(tokenizer).__name__} has no token {token!r} to append")
    return int(found)
