"""The routes that ask the index."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from twofold.serve import schemas
from twofold.serve.service import Service
from twofold.serve.waiting import attentive


def search_routes(service: Service) -> APIRouter:
    """All of them, for one service."""
    router = APIRouter(tags=["search"])

    @router.post("/v1/search", response_model=schemas.SearchResponse)
    async def search(request: Request, body: schemas.SearchRequest) -> Response:
        """The passages of the index that answer a question best: found by a first stage, put in order by the model."""
        variant, library = service.variant(body.model), service.library
        found = await service.engine.search(
            library.tokens(max(body.depth, body.top_k), body.rerank),
            lambda model: library.search(model, body.query, body.top_k, body.depth, body.mode, body.where, body.explain, body.rerank),
            variant,
            attentive(request),
        )
        content: dict[str, Any] = {"object": "search", "model": body.model or service.name, **found.as_dict()}
        return Response(to_json(content), media_type="application/json")

    return router
