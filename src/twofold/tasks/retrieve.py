"""Dense retrieval: a text becomes one unit vector; queries and their documents come close (InfoNCE, hard and in-batch negatives).

Shapes: N queries, M documents of the batch, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from twofold import losses
from twofold.backbone.packed import Pack, split
from twofold.records import Example
from twofold.tasks import Encoder, RoutingLoss, StepResult, Task, World, run_chunks

NAME = "retrieve"


class RetrieveTask(Task):
    """No head: the vector is the pooled hidden state, made unit length."""

    def __init__(
        self, *, temperature: float, margin: float | None, dims: tuple[int, ...], query_negatives: bool, document_negatives: bool, cache_tokens: int
    ) -> None:
        super().__init__()
        self.temperature, self.margin, self.dims = temperature, margin, dims
        self.query_negatives, self.document_negatives, self.cache_tokens = query_negatives, document_negatives, cache_tokens

    @property
    def measure(self) -> str:
        return "dense"

    def vectors(self, encoder: Encoder, pack: Pack, token_budget: int, auxiliary: RoutingLoss | None = None) -> tuple[Tensor, Tensor | None]:
        """Unit vectors (S, D) in fp32 in the caller's order, and the auxiliary loss of the passes if there is one."""

        def head(hidden_TD: Tensor, chunk: Pack) -> Tensor:
            return F.normalize(encoder.backbone.pool(hidden_TD, chunk), dim=-1)

        vector_SD, routings = run_chunks(encoder, pack, NAME, token_budget, head)
        extra = None if auxiliary is None else torch.stack([auxiliary(routing) for routing in routings]).mean()
        return vector_SD, extra

    def step(
        self, encoder: Encoder, examples: Sequence[Example], *, world: World, token_budget: int, weight: float, backward: Callable[[Tensor], None], auxiliary: RoutingLoss | None
    ) -> StepResult:
        """Queries and documents in one batch; beyond `cache_tokens` tokens the gradients of the vectors are cached
        (GradCache, Gao et al. 2021, arXiv 2101.06983), so that memory is bounded by a chunk and not by the batch."""
        queries = encoder.tokens.texts([example.query for example in examples], "query")
        documents = encoder.tokens.texts([text for example in examples for text in example.documents], "document")
        ids = [identity for example in examples for identity in example.document_ids]
        tokens = queries.tokens + documents.tokens
        if tokens > self.cache_tokens:
            loss = self._step_cached(encoder, (queries, documents), ids, examples, world, token_budget, weight, backward, auxiliary)
        else:
            (query_ND, more), (document_MD, extra) = (self.vectors(encoder, pack, token_budget, auxiliary) for pack in (queries, documents))
            loss = self.loss(query_ND, document_MD, ids, examples, world)
            total = loss * weight if more is None or extra is None else loss * weight + (more + extra) / world.size
            backward(total)
        return StepResult(float(loss.detach()), tokens, queries.truncated + documents.truncated)

    def _step_cached(
        self,
        encoder: Encoder,
        packs: tuple[Pack, Pack],
        ids: list[str],
        examples: Sequence[Example],
        world: World,
        token_budget: int,
        weight: float,
        backward: Callable[[Tensor], None],
        auxiliary: RoutingLoss | None,
    ) -> Tensor:
        with torch.no_grad():
            query_ND, document_MD = (self.vectors(encoder, pack, token_budget)[0] for pack in packs)
        leaves = [query_ND.requires_grad_(), document_MD.requires_grad_()]
        loss = self.loss(query_ND, document_MD, ids, examples, world)
        gradients = torch.autograd.grad(loss * weight, leaves)
        for pack, gradient in zip(packs, gradients, strict=True):
            for chunk, at in split(pack, token_budget):
                vector_SD, extra = self.vectors(encoder, chunk, token_budget, auxiliary)
                surrogate = (vector_SD * gradient[list(at)]).sum()
                backward(surrogate if extra is None else surrogate + extra * len(at) / len(gradient) / world.size)
        return loss

    def loss(self, query_ND: Tensor, document_MD: Tensor, ids: Sequence[str], examples: Sequence[Example], world: World) -> Tensor:
        """This process's share of the mean loss over all queries of all processes; only its own vectors carry a gradient."""
        sizes = [len(example.documents) for example in examples]
        first = torch.tensor([0, *sizes[:-1]]).cumsum(0).to(query_ND.device)
        if world.size > 1:
            query_ND, document_MD, first, ids = self._gathered(query_ND, document_MD, first, ids, world)
        index = {identity: i for i, identity in enumerate(dict.fromkeys(ids))}
        identity_M = torch.tensor([index[identity] for identity in ids], device=query_ND.device)
        same_NM = identity_M[first][:, None] == identity_M[None, :]
        relevant_NM = same_NM if world.size > 1 else same_NM | self._judged(ids, examples, query_ND.device)
        views = losses.matryoshka(query_ND, document_MD, self.dims) if self.dims else [(query_ND, document_MD)]
        parts = [
            losses.info_nce(
                query,
                document,
                first,
                temperature=self.temperature,
                margin=self.margin,
                same_NM=relevant_NM,
                query_negatives=self.query_negatives,
                document_negatives=self.document_negatives,
            ).mean()
            for query, document in views
        ]
        return torch.stack(parts).mean()

    def _judged(self, ids: Sequence[str], examples: Sequence[Example], device: torch.device) -> Tensor:
        """(N, M) True where a document of the batch is known to be relevant to a query."""
        rows = []
        for example in examples:
            known = {identity for identity, grade in zip(example.document_ids, example.grades, strict=True) if grade > 0}
            rows.append([identity in known for identity in ids])
        return torch.tensor(rows, device=device)

    def _gathered(self, query_ND: Tensor, document_MD: Tensor, first_N: Tensor, ids: Sequence[str], world: World) -> tuple[Tensor, Tensor, Tensor, list[str]]:
        """All processes' vectors, one's own with gradient. Every process sees the whole loss, so gradients are to be summed, not averaged."""
        m, n = len(document_MD), len(query_ND)
        everyone = []
        for own, size in ((query_ND, n), (document_MD, m)):
            gathered = world.gather(own.detach())
            if len(gathered) != size * world.size:
                raise ValueError(f"processes hold different numbers of texts ({size} here, {len(gathered)} in {world.size}): give every example the same number of negatives")
            everyone.append(torch.cat([gathered[: world.rank * size], own, gathered[(world.rank + 1) * size :]]))
        firsts = torch.cat([first_N + rank * m for rank in range(world.size)])
        digest = torch.tensor([_digest(identity) for identity in ids], device=query_ND.device)
        return everyone[0], everyone[1], firsts, [str(value) for value in world.gather(digest).tolist()]


def _digest(identity: str) -> int:
    """A 63-bit number for a document id, the same in every process."""
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big") >> 1


def build(
    *,
    width: int,  # noqa: ARG001 (retrieval has no head)
    temperature: float = 0.05,
    margin: float | None = 0.1,
    dims: Sequence[int] = (),
    query_negatives: bool = False,
    document_negatives: bool = False,
    cache_tokens: int = 16384,
) -> RetrieveTask:
    """`temperature` of InfoNCE; `margin` of the false-negative mask (negative: none); `dims`: Matryoshka sizes;
    `query_negatives`, `document_negatives`: Qwen3-Embedding's further negatives; `cache_tokens`: gradient caching above."""
    mask = None if margin is None or margin < 0 else margin
    return RetrieveTask(
        temperature=temperature, margin=mask, dims=tuple(dims), query_negatives=query_negatives, document_negatives=document_negatives, cache_tokens=cache_tokens
    )
