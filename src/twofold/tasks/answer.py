"""Answers: where in a passage the answer to a question stands, or that it does not stand there.

Question and passage are read together, as for `rerank`. Every token of the passage gets two logits, for the first and for the last token
of the answer, and the pass as a whole gets two for "not here" (Devlin et al. 2019, arXiv 1810.04805, section 4.3). A span's score is how
much more its ends speak for it than the pass speaks against all; 0 is the balance. The loss is the negative logarithm of the
probability of all places where an answer's words stand, together, since nobody says which of them was meant; in a wrong passage it is
that of "not here", and a wrong passage that happens to hold the answer's words teaches nothing (Clark and Gardner 2018, arXiv 1710.10723).

Shapes: P pairs, L places of a pair (0 is "not here", then the passage's tokens), T tokens of the stream, D features.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from twofold.backbone.packed import Pack
from twofold.backbone.tokens import TextTokens
from twofold.records import Document, Example, Place
from twofold.tasks import Encoder, RoutingLoss, StepContext, StepResult, Task, grouped, run_chunks

CANDIDATES = 64
"""Spans that are looked at in search for the best ones that do not overlap."""


class Span(NamedTuple):
    """An answer in a passage: the characters from `start` to `end`, and how much more speaks for it than for "not here" (0: as much)."""

    start: int
    end: int
    score: float


def support(span: float, pair: float, share: float) -> float:
    """How much speaks for a span of one passage among several: its own score, and a share of the pair score of question and passage."""
    return span + share * pair


@dataclass(frozen=True)
class Passages:
    """Questions with passages, tokenised, and where their tokens stand."""

    pack: Pack
    places: tuple[tuple[Place, ...], ...]
    """Pair → token of its passage that was kept → its characters; an empty place is no part of the text that may answer."""
    texts: tuple[str, ...]

    @property
    def truncated(self) -> int:
        """How many pairs were cut."""
        return self.pack.truncated


class AnswerTask(Task[Example]):
    """`longest`: tokens of an answer, at most; `best`: spans that are given for a pair; `threshold`: below it nothing answers."""

    def __init__(self, name: str, width: int, *, longest: int, best: int, threshold: float, rerank_share: float) -> None:
        super().__init__(name)
        self.longest, self.best, self.threshold, self.rerank_share = longest, best, threshold, rerank_share
        self.ends = nn.Linear(width, 2)
        self.asked = nn.Linear(width, 2, bias=False)
        self.nowhere = nn.Linear(width, 2)

    @property
    def measure(self) -> str:
        return "f1"

    def pack(self, tokens: TextTokens, items: Sequence[tuple[str, str] | tuple[str, str, str]]) -> Passages:
        """(question, passage), or (question, title, passage): the title is read and does not answer. Places are those in the passage."""
        documents = [Document("", item[1] if len(item) == 3 else "", item[-1]) for item in items]
        bodies = [document.body for document in documents]
        pack = tokens.pairs([(item[0], body) for item, body in zip(items, bodies, strict=True)])
        kept = [int(part.sum()) for part in (pack.part_T == 2).split(list(pack.lengths))]
        places = []
        for row, at, document in zip(tokens.places(bodies), pack.place_S.tolist(), documents, strict=True):
            start = document.text_at
            places.append(tuple((max(a - start, 0), max(b - start, 0)) for a, b in row[: kept[at]]))
        return Passages(pack, tuple(places), tuple(document.text for document in documents))

    def logits(self, encoder: Encoder, pack: Pack, token_budget: int, auxiliary: RoutingLoss | None = None) -> tuple[Tensor, Tensor | None]:
        """(P, L, 2) in fp32 in the caller's order, L one more than a pair may be long, -inf where there is no token; and the
        auxiliary loss of the passes if there is one."""
        longest = encoder.tokens.pair_length
        whole = "last" if encoder.backbone.causal else "first"

        def head(hidden_TD: Tensor, chunk: Pack) -> Tensor:
            question_PD = normal(encoder.backbone.pool(hidden_TD, chunk, part=1))
            none_P2 = linear(self.nowhere, normal(encoder.backbone.pool(hidden_TD, chunk, pooling=whole)))
            rows, columns = passage_places(chunk)
            token_MD = normal(hidden_TD[(chunk.part_T == 2).to(hidden_TD.device)])
            logit_M2 = linear(self.ends, token_MD) + linear(self.asked, token_MD * question_PD[rows])
            out_PL2 = none_P2.new_full((len(chunk.lengths), 1 + longest, 2), float("-inf"))
            return out_PL2.index_put((rows, 1 + columns), logit_M2).index_put((torch.arange(len(none_P2)), torch.tensor(0)), none_P2)

        return run_chunks(encoder, pack, self.name, token_budget, head, auxiliary)

    def predict(self, encoder: Encoder, pack: Passages, token_budget: int) -> list[list[Span]]:
        """The best spans of each pair that do not overlap, best first; none where the passage has no token that may answer."""
        logit_PL2 = self.logits(encoder, pack.pack, token_budget)[0].cpu()
        rows = zip(logit_PL2, pack.places, pack.texts, strict=True)
        return [best_spans(logit_L2, places, text, self.longest, self.best) for logit_L2, places, text in rows]

    def step(self, examples: Sequence[Example], context: StepContext) -> StepResult:
        """Examples are independent of one another, so each chunk of them goes backward by itself and memory is bounded.

        An example's loss is the mean over its documents. Raises ValueError for an example that does not say where answers stand.
        """
        total, tokens, truncated = 0.0, 0, 0
        encoder, n = context.encoder, len(examples) * context.world.size
        longest = encoder.tokens.pair_length
        sizes = [sum(min(longest, 8 + (len(one.query) + len(text)) // 4) for text in one.documents) for one in examples]
        for group in grouped(examples, sizes, context.token_budget):
            passages = self.pack(encoder.tokens, [(one.query, document) for one in group for document in one.documents])
            logit_PL2, extra = self.logits(encoder, passages.pack, context.token_budget, context.auxiliary)
            wanted = [spans for one in group for spans in wanted_of(one)]
            share_P = [1 / len(one.documents) for one in group for _ in one.documents]
            losses = [
                loss_of(logit_L2, tokens_of(places, spans)) * share
                for logit_L2, places, spans, share in zip(logit_PL2, passages.places, wanted, share_P, strict=True)
                if spans is not None
            ]
            loss = torch.stack(losses).sum() if losses else logit_PL2[:, 0].sum() * 0
            mean = loss * context.weight / n
            context.backward(mean if extra is None else mean + extra * len(group) / n)
            total, tokens, truncated = total + float(loss.detach()), tokens + passages.pack.tokens, truncated + passages.truncated
        return StepResult(total / len(examples), tokens, truncated)


def wanted_of(example: Example) -> list[tuple[Place, ...] | None]:
    """Document → where its answers stand, nowhere in a wrong one; None for what teaches nothing.

    That is a right document without the answer's words, and a wrong one with them.
    """
    if example.answers is None:
        raise ValueError(f"{example.query_id}: nothing says where its answers stand; the task learns from queries with metadata.answers")
    return [places if bool(places) == (grade > 0) else None for places, grade in zip(example.answers, example.grades, strict=True)]


def tokens_of(places: Sequence[Place], spans: Sequence[Place]) -> list[Place] | None:
    """(first, last) token of every span in a passage whose tokens stand at `places`; None where there are spans and all were cut off."""
    found = []
    starts, ends = [start for start, _ in places], [end for _, end in places]
    for start, end in spans:
        first, last = bisect.bisect_right(ends, start), bisect.bisect_left(starts, end) - 1
        if places and ends[-1] >= end and first <= last:
            found.append((first, last))
    return found if found or not spans else None


def loss_of(logit_L2: Tensor, spans: Sequence[Place] | None) -> Tensor:
    """−log of the probability that the answer is one of `spans` (tokens), or stands nowhere if there are none; 0 for None."""
    if spans is None:
        return logit_L2[0].sum() * 0
    whole = logit_L2.logsumexp(0).sum()
    if not spans:
        return whole - logit_L2[0].sum()
    first, last = (torch.tensor([1 + span[end] for span in spans], device=logit_L2.device) for end in (0, 1))
    return whole - (logit_L2[first, 0] + logit_L2[last, 1]).logsumexp(0)


def best_spans(logit_L2: Tensor, places: Sequence[Place], text: str, longest: int, best: int) -> list[Span]:
    """The `best` spans of up to `longest` tokens that do not overlap, as characters of `text` without the spaces around them."""
    n = len(places)
    first_n, last_n = logit_L2[1 : 1 + n].unbind(-1)
    allowed_n = torch.tensor([b > a for a, b in places], dtype=torch.bool)
    score_nn = first_n[:, None] + last_n[None] - logit_L2[0].sum()
    band_nn = torch.ones(n, n, dtype=torch.bool).triu().tril(longest - 1) & allowed_n[:, None] & allowed_n[None]
    score, at = score_nn.masked_fill(~band_nn, float("-inf")).flatten().topk(min(CANDIDATES, n * n))
    found: list[Span] = []
    for value, index in zip(score.tolist(), at.tolist(), strict=True):
        start, end = places[index // n][0], places[index % n][1]
        start, end = end - len(text[start:end].lstrip()), start + len(text[start:end].rstrip())
        if len(found) == best or value == float("-inf"):
            break
        if start < end and all(end <= one.start or one.end <= start for one in found):
            found.append(Span(start, end, value))
    return found


def passage_places(pack: Pack) -> tuple[Tensor, Tensor]:
    """For every token of a passage, in the stream's order: its pair's place in the stream, and which token of the passage it is."""
    mine_T = (pack.part_T == 2).cpu()
    counts = torch.tensor([int(mine.sum()) for mine in mine_T.split(list(pack.lengths))])
    rows = torch.repeat_interleave(torch.arange(len(counts)), counts)
    return rows, torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]


def normal(x_D: Tensor) -> Tensor:
    """Features of mean 0 and variance 1: backbones differ much in the size of their states."""
    return F.layer_norm(x_D.float(), x_D.shape[-1:])


def linear(layer: nn.Linear, x_D: Tensor) -> Tensor:
    """The layer in fp32."""
    return F.linear(x_D, layer.weight.float(), None if layer.bias is None else layer.bias.float())


def build(
    *, name: str = "answer", width: int, longest: int = 30, best: int = 3, threshold: float = 0.0, rerank_share: float = 0.0
) -> AnswerTask:
    """`longest`: tokens of an answer; `best`: spans of a passage; and what a training tunes on dev: `threshold`, below which nothing
    answers, and `rerank_share`, how much of a passage's pair score is added to its spans'. Raises ValueError for a number below 1.
    """
    if longest < 1 or best < 1:
        raise ValueError(f"{name}: longest {longest}, best {best}; use 1 or more")
    return AnswerTask(name, width, longest=longest, best=best, threshold=threshold, rerank_share=rerank_share)
