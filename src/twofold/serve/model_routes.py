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

from twofold.model.state import fingerprint
from twofold.model.system import System
from twofold.serve import schemas
from twofold.serve.engine import Done
from twofold.serve.refusals import Refusal
from twofold.serve.relevance import relevance
from twofold.serve.service import Service
from twofold.serve.waiting import attentive
from twofold.tasks import task_name

LONG = 50_000
"""Numbers of an answer that is written in a thread, not on the event loop."""
Priority = Annotated[str | None, Header(alias="X-Priority", description="`bulk`: others go first. Long requests are bulk in any case.")]


def model_routes(service: Service) -> APIRouter:
    """All of them, for one service."""
    router = APIRouter(tags=["model"])

    @router.post("/v1/embeddings", response_model=schemas.EmbeddingsResponse)
    async def embeddings(request: Request, body: schemas.EmbeddingsRequest, priority: Priority = None) -> Response:
        """Texts, or token ids of this model's tokenizer, to unit vectors. OpenAI's shape."""
        variant = service.variant(body.model)
        width = service.engine.systems[variant].embedder.width
        if body.dimensions is not None and body.dimensions > width:
            raise Refusal(422, "too_many_dimensions", f"dimensions: this model has {width}", param="dimensions")
        done = await service.engine.embed(
            body.texts, body.prompt, dims=body.dimensions, variant=variant, bulk=priority == "bulk", waiting=attentive(request)
        )
        service.metrics.truncated.labels("texts").inc(done.truncated)
        return await _written(
            {
                "object": "list",
                "model": body.model or service.name,
                "data": _vectors(done.values, body.encoding_format == "base64"),
                "usage": _usage(done),
            },
            done.values.size,
        )

    async def scored(request: Request, pairs: Sequence[tuple[str, str]], variant: str, priority: str | None, cut: bool = True) -> Done:
        waiting, bulk = attentive(request), priority == "bulk"
        done = await service.engine.score(pairs, variant=variant, bulk=bulk, waiting=waiting, cut=cut)
        service.metrics.truncated.labels("pairs").inc(done.truncated)
        return done

    shape = schemas.RerankResponse | list[schemas.TeiRank]

    @router.post("/rerank", response_model=shape)
    @router.post("/v1/rerank", response_model=shape)
    @router.post("/v2/rerank", response_model=shape)
    async def rerank(request: Request, body: schemas.RerankRequest, priority: Priority = None) -> Response:
        """Documents by how well they answer a query, read together with it. Cohere's and Jina's shape, or TEI's for `texts`."""
        variant, bodies = service.variant(body.model), body.bodies
        done = await scored(request, [(body.query, text) for text in bodies], variant, priority, body.truncate)
        shown = done.values if body.raw_scores else relevance(service.engine.systems[variant], done.values)
        order = np.argsort(-done.values, kind="stable")[: body.top_n]
        if body.texts is not None:
            rows = [{"index": int(i), "score": float(shown[i]), **({"text": bodies[i]} if body.return_text else {})} for i in order]
            return await _written(rows)
        documents = body.return_documents or False
        results = [
            {"index": int(i), "relevance_score": float(shown[i]), **({"document": {"text": bodies[i]}} if documents else {})} for i in order
        ]
        meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
        head = {"id": str(uuid.uuid4()), "object": "list", "model": body.model or service.name}
        return await _written({**head, "results": results, "usage": _usage(done), "meta": meta})

    @router.post("/score", response_model=schemas.ScoreResponse)
    @router.post("/v1/score", response_model=schemas.ScoreResponse)
    async def score(request: Request, body: schemas.ScoreRequest, priority: Priority = None) -> Response:
        """The raw score of pairs. vLLM's shape."""
        done = await scored(request, body.pairs, service.variant(body.model), priority)
        data = [{"index": i, "object": "score", "score": float(value)} for i, value in enumerate(done.values)]
        head = {"id": str(uuid.uuid4()), "object": "list", "model": body.model or service.name}
        return await _written({**head, "data": data, "usage": _usage(done)})

    @router.get("/v1/models", response_model=schemas.ModelList)
    async def models() -> Response:
        """What clients may name as `model`."""
        named = zip(service.names(), service.engine.systems.values(), strict=True)
        return await _written({"object": "list", "data": [_card(name, system, service) for name, system in named]})

    return router


def _vectors(vector_ND: NDArray[np.float32], as_base64: bool) -> list[dict[str, Any]]:
    rows: Sequence[Any] = vector_ND.tolist()
    if as_base64:
        rows = [base64.b64encode(vector.tobytes()).decode() for vector in vector_ND.astype("<f4")]
    return [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]


def _usage(done: Done) -> dict[str, int]:
    return {"prompt_tokens": done.tokens, "total_tokens": done.tokens, "truncated": done.truncated}


def _card(name: str, system: System, service: Service) -> dict[str, Any]:
    embedder, reranker = system.embedder, system.reranker
    return schemas.ModelCard(
        id=name,
        created=service.created,
        tasks=sorted({*embedder.tasks, *reranker.tasks}),
        dimensions=embedder.width,
        max_length=embedder.tokens.max_length,
        pair_length=reranker.tokens.pair_length,
        fingerprint=fingerprint(embedder, task_name("retrieve", system.variant)),
        passages=service.library.store.count() if service.has_library and service.library.system.variant == system.variant else None,
    ).model_dump()


async def _written(content: Any, numbers: int = 0) -> Response:
    """JSON, without looking through it a second time."""
    text = await asyncio.to_thread(to_json, content) if numbers > LONG else to_json(content)
    return Response(text, media_type="application/json")
