"""The application: routes, the gate before them, and errors of one form. It serves a `Service` and knows no model."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

from twofold import provenance
from twofold.serve import metrics, refusals, schemas
from twofold.serve.gate import Gate, Rules
from twofold.serve.model_routes import model_routes
from twofold.serve.page import page_routes
from twofold.serve.search_routes import search_routes
from twofold.serve.service import Service

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": refusals.ErrorBody, "description": what}
    for status, what in {
        400: "The body is not JSON.",
        401: "A key is needed, or this one is not known.",
        403: "This key, or a page of this origin, may not do this.",
        404: "There is no such model, or no index.",
        408: "The body came too slowly.",
        413: "The body is too large.",
        415: "The body is not declared as plain JSON.",
        421: "The server does not answer under this host name.",
        422: "The request does not fit; the code says how.",
        429: "The work would wait too long; Retry-After says when to try again.",
        500: "The model failed at this.",
        503: "The model is being loaded, or the server is shutting down.",
    }.items()
}
SUMMARY = "One loaded model that embeds, reranks, searches and answers, behind the APIs of OpenAI, Cohere, Jina, vLLM and TEI."


def make_app(service: Service, rules: Rules | None = None) -> Gate:
    """The ASGI application. `rules`: who and what is let in; as they stand, only this machine, and without keys."""
    app = FastAPI(title="Twofold", version=_version(), summary=SUMMARY, docs_url=None, redoc_url=None, responses=ERRORS)
    refusals.install(app)
    app.include_router(model_routes(service))
    app.include_router(search_routes(service))
    app.include_router(page_routes())

    @app.get("/health", response_model=schemas.Health, tags=["server"])
    async def health() -> dict[str, str]:
        """Whether the process lives, whatever the model does."""
        return {"status": service.status}

    @app.get("/ready", response_model=schemas.Health, tags=["server"])
    async def ready() -> Response:
        """200 while the model can be asked, 503 while it cannot."""
        refusal = service.why_not()
        return JSONResponse({"status": service.status}) if refusal is None else refusals.answer(refusal)

    @app.get("/metrics", tags=["server"], response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def counted() -> Response:
        """Prometheus' format."""
        return Response(service.metrics.text(), headers={"Content-Type": metrics.CONTENT_TYPE})

    return Gate(app, rules or Rules(), service.why_not, service.metrics.saw_request)


def _version() -> str:
    return provenance.versions().get("twofold", "0")
