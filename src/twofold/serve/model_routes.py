"""The routes that ask the model: embeddings, reranking, scores, and what models there are."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Header, Request, Response
from numpy.typing import NDArray
from pydantic_core import to_json

from twofold.serve import schemas
from twofold.serve.engine import Asking, Done
from twofold.serve.refusals import Refusal
from twofold.serve.relevance import relevance
from twofold.serve.service import Service
from twofold.serve.waiting import attentive

LONG = 50_000
"""Numbers of an answer that is written in a thread, not on the event loop."""
Priority = Annotated[str | None, Header(alias="X-Priority", description="`bulk`: others go first. Long requests are bulk in any case.")]


def model_routes(service: Service) -> APIRouter:
    """All of them, for one service."""
    router = APIRouter(tags=["model"])
    _embeddings(router, service)
    _pairs(router, service)

    @router.get("/v1/models", response_model=schemas.ModelList)
    async def models() -> Response:
        """What clients may name as `model`."""
        named = zip(service.names(), service.engine.systems, strict=True)
        return await _written({"object": "list", "data": [_card(name, variant, service) for name, variant in named]})

    return router


def _embeddings(router: APIRouter, service: Service) -> None:
    @router.post("/v1/embeddings", response_model=schemas.EmbeddingsResponse)
    async def embeddings(request: Request, body: schemas.EmbeddingsRequest, priority: Priority = None) -> Response:
        """Texts, or token ids of this model's tokenizer, to unit vectors. OpenAI's shape."""
        variant = service.variant(body.model)
        width = service.engine.systems[variant].embedder.width
        if body.dimensions is not None and body.dimensions > width:
            raise Refusal(422, "too_many_dimensions", f"dimensions: this model has {width}", param="dimensions")
        how = Asking(variant, priority == "bulk", attentive(request))
        done = await service.engine.embed(body.texts, body.prompt, how, dims=body.dimensions)
        service.metrics.truncated.labels("texts").inc(done.truncated)
        rows = _vectors(done.values, body.encoding_format == "base64")
        content = {"object": "list", "model": body.model or service.name, "data": rows, "usage": _usage(done)}
        return await _written(content, done.values.size)


def _pairs(router: APIRouter, service: Service) -> None:
    async def scored(request: Request, pairs: Sequence[tuple[str, str]], variant: str, priority: str | None, cut: bool = True) -> Done:
        done = await service.engine.score(pairs, Asking(variant, priority == "bulk", attentive(request)), cut=cut)
        service.metrics.truncated.labels("pairs").inc(done.truncated)
        return done

    shape = schemas.RerankResponse | list[schemas.TeiRank]

    @router.post("/rerank", response_model=shape)
    @router.post("/v1/rerank", response_model=shape)
    @router.post("/v2/rerank", response_model=shape)
    async def rerank(request: Request, body: schemas.RerankRequest | schemas.TeiRequest, priority: Priority = None) -> Response:
        """Documents by how well they answer a query, read together with it. Cohere's and Jina's shape, or TEI's for `texts`."""
        variant, bodies = service.variant(body.model), body.bodies
        done = await scored(request, [(body.query, text) for text in bodies], variant, priority, body.truncate)
        shown = done.values if body.raw_scores else relevance(service.engine.systems[variant], done.values)
        order = [int(i) for i in np.argsort(-done.values, kind="stable")[: body.top_n]]
        if isinstance(body, schemas.TeiRequest):
            return await _written([_row(i, "score", shown, {"text": bodies[i]} if body.return_text else {}) for i in order])
        wanted = body.return_documents or False
        results = [_row(i, "relevance_score", shown, {"document": {"text": bodies[i]}} if wanted else {}) for i in order]
        meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
        return await _written({**_head(body.model or service.name), "results": results, "usage": _usage(done), "meta": meta})

    @router.post("/score", response_model=schemas.ScoreResponse)
    @router.post("/v1/score", response_model=schemas.ScoreResponse)
    async def score(request: Request, body: schemas.ScoreRequest | schemas.QueriesRequest, priority: Priority = None) -> Response:
        """The raw score of pairs. vLLM's shape."""
        done = await scored(request, body.pairs, service.variant(body.model), priority)
        data = [{"index": i, "object": "score", "score": float(value)} for i, value in enumerate(done.values)]
        return await _written({**_head(body.model or service.name), "data": data, "usage": _usage(done)})


def _row(index: int, name: str, shown: NDArray[Any], more: dict[str, Any]) -> dict[str, Any]:
    return {"index": index, name: float(shown[index]), **more}


def _head(model: str) -> dict[str, str]:
    return {"id": str(uuid.uuid4()), "object": "list", "model": model}


def _vectors(vector_ND: NDArray[np.float32], as_base64: bool) -> list[dict[str, Any]]:
    rows: Sequence[Any] = vector_ND.tolist()
    if as_base64:
        rows = [base64.b64encode(vector.tobytes()).decode() for vector in vector_ND.astype("<f4")]
    return [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]


def _usage(done: Done) -> dict[str, int]:
    return {"prompt_tokens": done.tokens, "total_tokens": done.tokens, "truncated": done.truncated}


def _card(name: str, variant: str, service: Service) -> dict[str, Any]:
    system = service.engine.systems[variant]
    embedder, reranker = system.embedder, system.reranker
    return schemas.ModelCard(
        id=name,
        created=service.created,
        tasks=sorted({*embedder.tasks, *reranker.tasks}),
        dimensions=embedder.width,
        max_length=embedder.tokens.max_length,
        pair_length=reranker.tokens.pair_length,
        fingerprint=service.fingerprints[variant],
        passages=service.library.store.count() if service.has_library and service.library.system.variant == system.variant else None,
    ).model_dump()


async def _written(content: Any, numbers: int = 0) -> Response:
    """JSON, without looking through it a second time."""
    text = await asyncio.to_thread(to_json, content) if numbers > LONG else to_json(content)
    return Response(text, media_type="application/json")
