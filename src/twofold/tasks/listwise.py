"""Listwise reranking by a pseudo-query (E2Rank, arXiv 2510.22733): the form of `rerank` that reads all candidates of a query together.

One prompt holds the query and its first K candidates, each cut to a length of its own; it is encoded once, and a candidate's score is
the cosine of that vector with the vector that the candidate has by itself, which an index holds already. Training compares the scores
of a list by RankNet, with the gradient through both sides. With `feedback = "rocchio"` the pseudo-query is a · q + b · mean of the
first K documents' vectors instead (Rocchio 1971, on vectors as in ANCE-PRF): a row to stand beside it.

What differs from the paper: K and the lengths are cut to a small context (20 candidates of 1,024 tokens there), and declared in a
result; a training list is the one that every method of this harness trains on, in the order in which a first stage would hand it
over (the model's own cosine), since with the positive first its place would tell the answer; where there are only judgements, RankNet has
only their pairs (the paper has full permutations by a 32B model; `labels = "teacher"` takes a teacher's scores); its mean is over a
list's pairs, then over lists; and one prompt serves training and search alike (there, two that differ).
Shapes: N lists, M documents of all of them, L documents of one, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from twofold import losses
from twofold.backbone.packed import Pack
from twofold.backbone.tokens import TextTokens
from twofold.errors import ConfigError
from twofold.records import Example
from twofold.tasks import Encoder, RoutingLoss, StepContext, StepResult, Task, grouped, unit_vectors


class ListPack(NamedTuple):
    """Whole lists: what each pseudo-query is made from (the prompt, or the query alone), and every document by itself."""

    asked: Pack
    documents: Pack
    sizes: tuple[int, ...]

    @property
    def truncated(self) -> int:
        """Prompts and documents that were cut."""
        return self.asked.truncated + self.documents.truncated


class Wording(NamedTuple):
    """What stands around the candidates and the query."""

    before: str
    query: str
    after: str


class ListwiseTask(Task[Example]):
    """No head: two vectors and their cosine. `documents_as` is the task by whose passes a document has its own vector."""

    reads_lists = True

    def __init__(
        self, name: str, *, k: int, document_tokens: int, wording: Wording, documents_as: str, feedback: tuple[float, float] | None,
        labels: str, scale: float, factor: float,
    ) -> None:  # fmt: skip
        super().__init__(name)
        self.k, self.document_tokens, self.wording, self.documents_as = k, document_tokens, wording, documents_as
        self.feedback, self.labels, self.scale, self.factor = feedback, labels, scale, factor

    @property
    def measure(self) -> str:
        return "reranked"

    @property
    def declares(self) -> Mapping[str, Any]:
        """K, the lengths, what the order was learnt from, and what makes the pseudo-query."""
        made = "listwise prompt" if self.feedback is None else f"rocchio {self.feedback[0]:g} q + {self.feedback[1]:g} mean d"
        return {"reads": "lists", "pseudo_query": made, "k": self.k, "document_tokens": self.document_tokens, "labels": self.labels}

    def pack(self, tokens: TextTokens, items: Sequence[Sequence[str]]) -> ListPack:
        """Lists of a query and its candidates, the first stage's best first."""
        documents = tokens.texts([text for item in items for text in item[1:]], "document")
        return ListPack(self._asked(tokens, items), documents, tuple(len(item) - 1 for item in items))

    def predict(self, encoder: Encoder, pack: ListPack, token_budget: int) -> list[list[float]]:
        """The score of each candidate of each list."""
        document_MD, _ = unit_vectors(encoder, pack.documents, self.documents_as, token_budget)
        lists = document_MD.split(list(pack.sizes))
        return [score_L.tolist() for score_L in self.scores(self.pseudo_queries(encoder, pack.asked, lists, token_budget)[0], lists)]

    def pseudo_queries(
        self, encoder: Encoder, asked: Pack, lists: Sequence[Tensor], token_budget: int, auxiliary: RoutingLoss | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(N, D) unit vectors; `lists` are the candidates' own (L, D). Raises ConfigError for a prompt longer than the model reads."""
        if asked.lengths[0] > encoder.backbone.position_limit:
            what = f"a listwise prompt of {asked.lengths[0]} tokens (k = {self.k}, document_tokens = {self.document_tokens})"
            raise ConfigError(f"{self.name}: {what}, and the backbone reads {encoder.backbone.position_limit}: use fewer or shorter")
        if self.feedback is None:
            return unit_vectors(encoder, asked, self.name, token_budget, auxiliary)
        query_ND, extra = unit_vectors(encoder, asked, self.documents_as, token_budget, auxiliary)
        mean_ND = torch.stack([own_LD[: self.k].mean(0) for own_LD in lists])
        return F.normalize(self.feedback[0] * query_ND + self.feedback[1] * mean_ND, dim=-1), extra

    def scores(self, pseudo_ND: Tensor, lists: Sequence[Tensor]) -> list[Tensor]:
        """Each list's (L,) cosines, times `scale`."""
        return [self.scale * (own_LD @ pseudo_D) for pseudo_D, own_LD in zip(pseudo_ND, lists, strict=True)]

    def step(self, examples: Sequence[Example], context: StepContext) -> StepResult:
        """Lists are independent of one another, so each group of lists goes backward by itself and memory is bounded."""
        total, tokens, truncated = 0.0, 0, 0
        encoder, n = context.encoder, len(examples) * context.world.size
        sizes = [self.k * self.document_tokens + sum(len(text) // 4 for text in example.documents) for example in examples]
        for group in grouped(examples, sizes, context.token_budget):
            documents = encoder.tokens.texts([text for example in group for text in example.documents], "document")
            document_MD, more = unit_vectors(encoder, documents, self.documents_as, context.token_budget, context.auxiliary)
            lists = list(document_MD.split([len(example.documents) for example in group]))
            orders = list(self._orders(encoder, group, lists, context.token_budget))
            lists = [own_LD[order_L] for own_LD, order_L in zip(lists, orders, strict=True)]
            rows = [(each.query, *(each.documents[i] for i in order_L)) for each, order_L in zip(group, orders, strict=True)]
            asked = self._asked(encoder.tokens, rows)
            pseudo_ND, extra = self.pseudo_queries(encoder, asked, lists, context.token_budget, context.auxiliary)
            scored = zip(self.scores(pseudo_ND, lists), group, orders, strict=True)
            loss = torch.stack([losses.ranknet(score_L, self._labels(each)[order_L]) for score_L, each, order_L in scored]).sum()
            share = loss * self.factor * context.weight / n
            context.backward(share if extra is None or more is None else share + (extra + more) * len(group) / n)
            total, tokens = total + float(loss.detach()), tokens + documents.tokens + asked.tokens
            truncated += documents.truncated + asked.truncated
        return StepResult(total / len(examples), tokens, truncated)

    @torch.no_grad()
    def _orders(self, encoder: Encoder, examples: Sequence[Example], lists: Sequence[Tensor], token_budget: int) -> Iterator[Tensor]:
        """Each list's documents as a first stage would hand them over: by their cosine with the query, best first."""
        queries = encoder.tokens.texts([example.query for example in examples], "query")
        query_ND, _ = unit_vectors(encoder, queries, self.documents_as, token_budget)
        for query_D, own_LD in zip(query_ND, lists, strict=True):
            yield (own_LD.detach() @ query_D).argsort(descending=True, stable=True).cpu()

    def _asked(self, tokens: TextTokens, items: Sequence[Sequence[str]]) -> Pack:
        """The listwise prompts, or the queries alone."""
        if self.feedback is not None:
            return tokens.texts([item[0] for item in items], "query")
        before, query, after = self.wording
        rows = []
        for item in items:
            candidates = [(f"\n[{i}] {text}", self.document_tokens) for i, text in enumerate(item[1 : self.k + 1], 1)]
            rows.append([(before, None), *candidates, (f"\n{query}{item[0]}", tokens.query_length), (after, None)])
        return tokens.joined(rows)

    def _labels(self, example: Example) -> Tensor:
        """What a list is to be ordered by. Raises ValueError where a teacher's scores are asked for and are not there."""
        if self.labels == "teacher" and example.teacher is None:
            raise ValueError(f"{self.name}: labels by a teacher, and {example.query_id!r} has no teacher scores")
        return torch.tensor(example.grades if self.labels == "grades" else example.teacher)


def build(
    *,
    name: str = "listwise",
    k: int = 6,
    document_tokens: int = 64,
    before: str = "Documents:",
    query: str = "Query: ",
    after: str = "",
    documents_as: str = "",
    feedback: str = "prompt",
    rocchio: tuple[float, float] = (1.0, 1.0),
    labels: str = "grades",
    scale: float = 10.0,
    factor: float = 1.0,
) -> ListwiseTask:
    """`k` candidates of `document_tokens` each in the prompt; `before`, `query` and `after` stand around them; `documents_as`: the task
    whose passes give documents their vectors (none: this one); `feedback`: prompt, or rocchio with these weights of query and documents;
    `labels`: grades or teacher; `scale` of the cosine; `factor` of the loss. Raises ValueError for what is none of these."""
    if feedback not in ("prompt", "rocchio") or labels not in ("grades", "teacher") or min(k, document_tokens) < 1 or scale <= 0:
        raise ValueError(
            f"listwise: feedback {feedback!r}, labels {labels!r}, k {k}, document_tokens {document_tokens}, scale {scale}; "
            "use prompt or rocchio, grades or teacher, and numbers above 0"
        )
    return ListwiseTask(
        name,
        k=k,
        document_tokens=document_tokens,
        wording=Wording(before, query, after),
        documents_as=documents_as or name,
        feedback=rocchio if feedback == "rocchio" else None,
        labels=labels,
        scale=scale,
        factor=factor,
    )
