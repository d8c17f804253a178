"""The routes that ask the index."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from twofold.search.answers import Answer
from twofold.search.pipeline import Found
from twofold.serve import search_schemas as schemas
from twofold.serve.engine import Blocking
from twofold.serve.library import Question
from twofold.serve.refusals import Refusal
from twofold.serve.service import Service
from twofold.serve.waiting import attentive


def search_routes(service: Service) -> APIRouter:
    """All of them, for one service."""
    router = APIRouter(tags=["search"])

    @router.post("/v1/search", response_model=schemas.SearchResponse)
    async def search(request: Request, body: schemas.SearchRequest) -> Response:
        """The passages of the index that answer a question best: found by a first stage, put in order by the model."""
        library, question = service.library, _question(body, body.query, body.top_k)
        _check(service, body)
        found = await service.engine.search(
            library.tokens(question), lambda model: library.search(model, question), library.system.variant, attentive(request)
        )
        return _written({"object": "search", "model": body.model or service.name, **found.as_dict()})

    @router.post("/v1/answer", response_model=schemas.AnswerResponse)
    async def answer(request: Request, body: schemas.AnswerRequest) -> Response:
        """The words of a passage that answer a question, or the word that nothing which was found does."""
        library, question = service.library, _question(body, body.question, max(body.top_k, body.read))
        _check(service, body)
        if library.answerer is None:
            raise Refusal(404, "no_answers", "this model has not learnt to answer; it searches: use /v1/search")

        def work(model: Blocking) -> tuple[Found, Answer]:
            found = library.search(model, question)
            return found, library.answer(model, question.query, found.hits, body.read)

        found, said = await service.engine.search(library.tokens(question), work, library.system.variant, attentive(request))
        content = {"object": "answer", "model": body.model or service.name, **found.as_dict(), **said.as_dict()}
        content["seconds"] = {**found.seconds, "answer": said.seconds}
        return _written(content)

    return router


def _check(service: Service, body: schemas.Asked) -> None:
    """Raises Refusal for another model than the index's own."""
    if service.variant(body.model) != service.library.system.variant:
        raise Refusal(404, "model_not_found", "the index belongs to another variant of this model", param="model")


def _question(body: schemas.Asked, query: str, k: int) -> Question:
    return Question(query, k, body.depth, body.mode, body.where, body.explain, body.rerank)


def _written(content: dict[str, Any]) -> Response:
    return Response(to_json(content), media_type="application/json")
