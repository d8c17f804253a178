"""Dense retrieval: a text becomes one unit vector; queries and their documents come close (InfoNCE, hard and in-batch negatives).

A retrieval-tuned backbone knows more than a small training set can teach, and forgets it quickly. With `keep` above 0 every vector is
also held near the one that the backbone gives without its experts (its cosine is added to the loss): an embedder that has learnt
without losing what it was good at, as in learning without forgetting (Li and Hoiem 2016, arXiv 1606.09282) on the vectors themselves.

Queries and documents may be passes of their own (`sides`: retrieve/query and retrieve/document), which the plan gives experts of their
own, and so may queries of one of several `domains` (retrieve/NAME), chosen by the vector that the bare backbone gives them.

Shapes: N queries, M documents of the batch, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from twofold import losses
from twofold.backbone.packed import Pack, split
from twofold.backbone.tokens import TextTokens
from twofold.records import Example
from twofold.tasks import Encoder, RoutingLoss, StepContext, StepResult, Task, World, unit_vectors
from twofold.tasks._domains import Domains

Value = TypeVar("Value")
Sides = tuple[Value, Value]
"""Of the queries and of the documents of a batch."""
Passes = str | Sequence[str]


class RetrieveTask(Task[Example]):
    """No head: the vector is the pooled hidden state, made unit length."""

    def __init__(
        self,
        name: str,
        *,
        temperature: float,
        margin: float | None,
        dims: tuple[int, ...],
        query_negatives: bool,
        document_negatives: bool,
        cache_tokens: int,
        keep: float = 0.0,
        sides: bool = False,
        domains: Domains | None = None,
    ) -> None:
        super().__init__(name)
        self.keep, self.sides, self.domains = keep, sides or domains is not None, domains
        self.temperature, self.margin, self.dims = temperature, margin, dims
        self.query_negatives, self.document_negatives, self.cache_tokens = query_negatives, document_negatives, cache_tokens

    @property
    def measure(self) -> str:
        return "dense"

    def pack(self, tokens: TextTokens, items: Sequence[str]) -> Pack:
        """Texts, without a prompt."""
        return tokens.texts(items)

    def predict(self, encoder: Encoder, pack: Pack, token_budget: int) -> list[list[float]]:
        """The unit vector of each text."""
        passes = self.passes(encoder, pack, None, token_budget)
        found: list[list[float]] = self.vectors(encoder, pack, token_budget, task=passes)[0].tolist()
        return found

    def vectors(
        self, encoder: Encoder, pack: Pack, token_budget: int, auxiliary: RoutingLoss | None = None, task: Passes | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Unit vectors (S, D) in fp32 in the caller's order, and the auxiliary loss of the passes if there is one.

        `task`: what `passes` says, where it is not the task's own name; () is the backbone without experts.
        """
        return unit_vectors(encoder, pack, self.name if task is None else task, token_budget, auxiliary)

    @torch.no_grad()
    def passes(self, encoder: Encoder, pack: Pack, prompt: str | None, token_budget: int) -> Passes:
        """The name by which experts know the passes of these texts: one, or one each. What is not said to be queries is documents."""
        if self.domains is not None and prompt == "query":
            bare_ND, _ = self.vectors(encoder, pack, token_budget, task=())
            return self._by_domain(self.domains, self.domains.nearest(bare_ND))
        return f"{self.name}/{'query' if prompt == 'query' else 'document'}" if self.sides else self.name

    def _by_domain(self, domains: Domains, domain_N: Sequence[int]) -> list[str]:
        return [f"{self.name}/{domains.names[domain]}" for domain in domain_N]

    @torch.no_grad()
    def _training_passes(self, queries: Pack, examples: Sequence[Example], context: StepContext) -> Sides[Passes]:
        """As `passes`, of queries and of documents; the domains learn from the queries of all processes."""
        document = self.passes(context.encoder, queries, "document", context.token_budget)
        if self.domains is None:
            return self.passes(context.encoder, queries, "query", context.token_budget), document
        bare_ND, _ = self.vectors(context.encoder, queries, context.token_budget, task=())
        names = [example.query_id.partition("/")[0] for example in examples]
        world, n = context.world, len(examples)
        known = torch.tensor(
            [self.domains.names.index(name) if name in self.domains.names else -1 for name in names], device=bare_ND.device
        )
        datasets = [self.domains.names[i] if i >= 0 else "" for i in world.gather(known).tolist()]
        domain_N = self.domains.learn(world.gather(bare_ND), datasets)[world.rank * n : (world.rank + 1) * n]
        return self._by_domain(self.domains, domain_N), document

    def step(self, examples: Sequence[Example], context: StepContext) -> StepResult:
        """Queries and documents in one batch; beyond `cache_tokens` tokens the gradients of the vectors are cached
        (GradCache, Gao et al. 2021, arXiv 2101.06983), so that memory is bounded by a chunk and not by the batch."""
        tokens = context.encoder.tokens
        queries = tokens.texts([example.query for example in examples], "query")
        documents = tokens.texts([text for example in examples for text in example.documents], "document")
        size = queries.tokens + documents.tokens
        bare = self._bare(context, queries, documents) if self.keep else None
        passes = self._training_passes(queries, examples, context)
        step = self._step_direct if size <= self.cache_tokens else self._step_cached
        loss = step(list(zip((queries, documents), passes, strict=True)), examples, context, bare)
        return StepResult(float(loss.detach()), size, queries.truncated + documents.truncated)

    def _step_direct(
        self, packs: list[tuple[Pack, Passes]], examples: Sequence[Example], context: StepContext, bare: Sides[Tensor] | None
    ) -> Tensor:
        (query_ND, extra), (document_MD, more) = (
            self.vectors(context.encoder, pack, context.token_budget, context.auxiliary, passes) for pack, passes in packs
        )
        loss = self.loss(query_ND, document_MD, examples, context.world, bare)
        total = loss * context.weight
        context.backward(total if extra is None or more is None else total + (extra + more) / context.world.size)
        return loss

    def _step_cached(
        self, packs: list[tuple[Pack, Passes]], examples: Sequence[Example], context: StepContext, bare: Sides[Tensor] | None
    ) -> Tensor:
        with torch.no_grad():
            query_ND, document_MD = (self.vectors(context.encoder, pack, context.token_budget, task=passes)[0] for pack, passes in packs)
        leaves = [query_ND.requires_grad_(), document_MD.requires_grad_()]
        loss = self.loss(query_ND, document_MD, examples, context.world, bare)
        gradients = torch.autograd.grad(loss * context.weight, leaves)
        for (pack, passes), gradient_SD in zip(packs, gradients, strict=True):
            for chunk, at in split(pack, context.token_budget):
                own = passes if isinstance(passes, str) else [passes[i] for i in at]
                vector_SD, extra = self.vectors(context.encoder, chunk, context.token_budget, context.auxiliary, own)
                surrogate = (vector_SD * gradient_SD[list(at)]).sum()
                share = len(at) / len(gradient_SD) / context.world.size
                context.backward(surrogate if extra is None else surrogate + extra * share)
        return loss

    @torch.no_grad()
    def _bare(self, context: StepContext, *packs: Pack) -> Sides[Tensor]:
        """The unit vectors that the backbone gives without experts, of queries and documents."""
        query_ND, document_MD = (self.vectors(context.encoder, pack, context.token_budget, task=())[0] for pack in packs)
        return query_ND, document_MD

    def loss(
        self, query_ND: Tensor, document_MD: Tensor, examples: Sequence[Example], world: World, bare: Sides[Tensor] | None = None
    ) -> Tensor:
        """The mean loss over all queries of all processes, of which only this process's own vectors carry a gradient.

        `bare`: the same texts' vectors without experts, for `keep`. Every process computes the whole of it, so their gradients
        are to be summed, not averaged.
        """
        query_ND, document_MD, positive_N, relevant_NM = _gathered(query_ND, document_MD, examples, world)
        views = losses.matryoshka(query_ND, document_MD, self.dims) if self.dims else [(query_ND, document_MD)]
        parts = [
            losses.info_nce(
                query,
                document,
                positive_N,
                temperature=self.temperature,
                margin=self.margin,
                relevant_NM=relevant_NM,
                query_negatives=self.query_negatives,
                document_negatives=self.document_negatives,
            ).mean()
            for query, document in views
        ]
        loss = torch.stack(parts).mean()
        if bare is None:
            return loss
        drifts = [1 - (own * world.gather(kept)).sum(-1).mean() for own, kept in zip((query_ND, document_MD), bare, strict=True)]
        return loss + self.keep * torch.stack(drifts).mean()


def _gathered(query_ND: Tensor, document_MD: Tensor, examples: Sequence[Example], world: World) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries and documents of all processes, each query's positive, and which documents are known to be relevant to it.

    Raises ValueError where processes hold different numbers of texts.
    """
    device, n, m = query_ND.device, len(query_ND), len(document_MD)
    sizes = world.gather(torch.tensor([n, m], device=device)).view(-1, 2)
    if bool((sizes != sizes[0]).any()):
        raise ValueError(f"processes hold different numbers of queries and documents: {sizes.tolist()}; give all the same")
    first_N = torch.tensor([0, *(len(example.documents) for example in examples[:-1])], device=device).cumsum(0)
    positive_N = world.gather(first_N + world.rank * m)
    id_M = world.gather(torch.tensor([_digest(identity) for example in examples for identity in example.document_ids], device=device))
    rows = []
    for example in examples:
        known = [identity for identity, grade in zip(example.document_ids, example.grades, strict=True) if grade > 0]
        rows.append(torch.isin(id_M, torch.tensor([_digest(identity) for identity in (example.document_ids[0], *known)], device=device)))
    relevant_NM = world.gather(torch.stack(rows).to(torch.uint8)).bool()
    return _spliced(query_ND, world), _spliced(document_MD, world), positive_N, relevant_NM


def _spliced(own: Tensor, world: World) -> Tensor:
    """All processes' vectors in order, one's own with its gradient."""
    everyone, n = world.gather(own.detach()), len(own)
    return torch.cat([everyone[: world.rank * n], own, everyone[(world.rank + 1) * n :]])


def _digest(identity: str) -> int:
    """A 63-bit number for a document id, the same in every process."""
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big") >> 1


def build(
    *,
    name: str = "retrieve",
    width: int,
    temperature: float = 0.05,
    margin: float | None = 0.1,
    dims: Sequence[int] = (),
    query_negatives: bool = False,
    document_negatives: bool = False,
    cache_tokens: int = 16384,
    keep: float = 0.0,
    sides: bool = False,
    domains: tuple[str, ...] = (),
) -> RetrieveTask:
    """`temperature` of InfoNCE; `margin` of the false-negative mask (negative: none); `dims`: Matryoshka sizes;
    `query_negatives`, `document_negatives`: Qwen3-Embedding's further negatives; `cache_tokens`: gradient caching above;
    `keep`: how much it costs to leave the backbone's own vectors; `sides`: queries and documents are passes of their own; `domains`:
    names of the queries' passes, those of datasets or any. Raises ValueError for a temperature that is not positive, a
    `keep` below 0 and sizes that vectors of `width` features do not have."""
    if keep < 0:
        raise ValueError(f"retrieve: keep {keep}; use 0 or more")
    if temperature <= 0 or not all(0 < size <= width for size in dims):
        raise ValueError(f"retrieve: temperature {temperature}, dims {list(dims)}; use a temperature above 0 and dims from 1 to {width}")
    return RetrieveTask(
        name,
        temperature=temperature,
        margin=None if margin is None or margin < 0 else margin,
        dims=tuple(dims),
        query_negatives=query_negatives,
        document_negatives=document_negatives,
        cache_tokens=cache_tokens,
        keep=keep,
        sides=sides,
        domains=Domains(domains, width) if domains else None,
    )
