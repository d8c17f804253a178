"""Documents cut into passages that the model reads whole: at sentences and headings, with some overlap, measured in its own tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from twofold.errors import ConfigError
from twofold.search.formats import Page
from twofold.search.stores import Metadata, Passage

RULES = "passages 1"
"""Part of every digest: other rules cut the same document otherwise."""
LARGEST = 256
"""Tokens of a passage, if the model would take more: what is found is to be read."""
TITLE_ROOM, SPARE = 32, 4
"""Tokens kept free for the title, and for words that the tokenizer cuts otherwise where pieces meet."""
CHARACTERS_PER_TOKEN = 16
"""A piece counts as a token for so many characters at least: the model cuts longer ones."""

Span = tuple[int, int]
"""From this character to before that one."""
Spans = Callable[[Sequence[str]], list[list[Span]]]
"""Texts → where the tokens of each lie in it."""

_END = re.compile(r"[.!?][\"'”’)\]]*\s+|[。！？][”』」]*\s*|\n[ \t]*\n\s*|\n(?=[ \t]*(?:[-*+•]|\d+[.)])[ \t])")  # noqa: RUF001


@dataclass(frozen=True)
class Cut:
    """How documents are cut."""

    size: int
    """Tokens of a passage, title aside."""
    overlap: int
    """Tokens at its end that the next passage may begin with, in whole sentences."""

    @classmethod
    def of(cls, room: int, size: int | None = None, overlap: int | None = None) -> Cut:
        """Fitted to the tokens that a model leaves room for. Raises ConfigError for sizes that do not fit."""
        most = max(room - min(TITLE_ROOM, room // 4) - min(SPARE, room // 8), 1)
        size = min(most, LARGEST) if size is None else size
        overlap = size // 8 if overlap is None else overlap
        if not 1 <= size <= most or not 0 <= overlap < size:
            said = f"passages of {size} tokens that overlap by {overlap}"
            raise ConfigError(f"{said}: use a size of 1 to {most}, for which this model has room, and a smaller overlap")
        return cls(size, overlap)

    @property
    def rules(self) -> str:
        """Everything about cutting that a digest depends on."""
        return f"{RULES} size={self.size} overlap={self.overlap}"


class Piece(NamedTuple):
    """A sentence, or a part of one that is too long."""

    start: int
    end: int
    tokens: int
    heading: int
    """The place of the heading that it stands under; -1 before the first."""


def cut(page: Page, spans: Spans, how: Cut) -> list[tuple[Span, str]]:
    """The passages of a document as (characters, heading). A section begins a new one, unless the last is still short."""
    found: list[tuple[Span, str]] = []
    for group in _groups(_pieces(page, spans, how.size), how):
        start, end = group[0].start, group[-1].end
        text = page.text[start:end]
        kept = text.strip()
        if kept:
            start += len(text) - len(text.lstrip())
            path = page.headings[group[0].heading].path if group[0].heading >= 0 else ""
            found.append(((start, start + len(kept)), path))
    return found


def passages(page: Page, spans: Spans, how: Cut, template: Passage) -> list[Passage]:
    """The passages of a document; `template` has its id, origin, digest, metadata and the file that `source` begins with."""
    pieces = cut(page, spans, how)
    titles = [": ".join(part for part in (page.title, path) if part) for _, path in pieces]
    short = {title: _shortened(title, row) for title, row in zip(dict.fromkeys(titles), spans(list(dict.fromkeys(titles))), strict=True)}
    metadata: Metadata = {**(page.facts or {}), **template.metadata}
    return [
        replace(
            template,
            id=f"{template.document}#{n}",
            title=short[title],
            text=page.text[start:end],
            source=template.source + page.place(start),
            metadata=metadata,
        )
        for n, (((start, end), _), title) in enumerate(zip(pieces, titles, strict=True))
    ]


def _shortened(title: str, tokens: Sequence[Span]) -> str:
    """A title of at most so many tokens as there is room for."""
    return title if len(tokens) <= TITLE_ROOM else title[: tokens[TITLE_ROOM - 1][1]]


def _pieces(page: Page, spans: Spans, size: int) -> list[Piece]:
    """The text without a gap: sentences, and parts of those that are longer than a passage."""
    edges = list(_sentences(page))
    texts = [page.text[start:end] for start, end, _ in edges]
    found = []
    for (start, end, heading), tokens in zip(edges, spans(texts), strict=True):
        firsts = [start, *(start + tokens[i][0] for i in range(size, len(tokens), size))]
        for n, (a, b) in enumerate(zip(firsts, [*firsts[1:], end], strict=True)):
            count = min(size, max(len(tokens) - n * size, 0))
            found.append(Piece(a, b, min(size, max(count, -(-(b - a) // CHARACTERS_PER_TOKEN))), heading))
    return found


def _sentences(page: Page) -> Iterator[tuple[int, int, int]]:
    """(start, end, heading) of every sentence; none reaches over a heading, nor is it longer than what a tokenizer should be given."""
    longest = 64 * CHARACTERS_PER_TOKEN
    bounds = [0, *(heading.at for heading in page.headings), len(page.text)]
    for heading, (start, stop) in enumerate(pairwise(bounds), start=-1):
        ends = [match.end() for match in _END.finditer(page.text, start, stop)]
        for end in (*ends, stop):
            while start < end:
                yield start, min(end, start + longest), heading
                start = min(end, start + longest)


def _groups(pieces: Sequence[Piece], how: Cut) -> Iterator[list[Piece]]:
    """Pieces gathered up to the size; the next group begins with the last pieces again, as far as the overlap reaches."""
    group: list[Piece] = []
    fresh = False
    for piece in pieces:
        total = sum(each.tokens for each in group)
        section = bool(group) and piece.heading != group[-1].heading and total >= how.size // 4
        if group and (section or total + piece.tokens > how.size):
            if fresh:
                yield group
            group = [] if section else _tail(group, min(how.overlap, how.size - piece.tokens))
        group.append(piece)
        fresh = True
    if group and fresh:
        yield group


def _tail(group: Sequence[Piece], most: int) -> list[Piece]:
    """The last pieces that have at most so many tokens together and stand under one heading."""
    kept: list[Piece] = []
    for piece in reversed(group):
        if sum(each.tokens for each in kept) + piece.tokens > most or piece.heading != group[-1].heading:
            break
        kept.insert(0, piece)
    return kept
