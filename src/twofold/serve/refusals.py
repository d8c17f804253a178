"""What a client is told when it does not get what it asked for: one form of error everywhere, with a code that a program can read.

The form is OpenAI's, `{"error": {"message", "type", "param", "code"}}`; Cohere's and TEI's clients read the same body. Nothing of a
request's text is repeated in it, and nothing of the server's inside.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from twofold.errors import TwofoldError
from twofold.serve.queue import Closed, Overloaded
from twofold.serve.worker import Failed

log = logging.getLogger(__name__)
CODES = {404: "not_found", 405: "method_not_allowed"}
"""Status → the code where the framework refuses."""
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 500: "server_error", 503: "server_error"}


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str


class ErrorBody(BaseModel):
    """Every answer that is not a success."""

    error: ErrorDetail


class Refusal(Exception):
    """Raised where a route cannot go on; becomes the answer."""

    def __init__(self, status: int, code: str, message: str, *, param: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param, self.retry_after = status, code, message, param, retry_after


def answer(refusal: Refusal) -> JSONResponse:
    """The refusal as a response."""
    kind = TYPES.get(refusal.status, "invalid_request_error")
    detail = ErrorDetail(message=refusal.message, type=kind, param=refusal.param, code=refusal.code)
    headers = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after is not None else {}
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(ErrorBody(error=detail).model_dump(), refusal.status, headers)


def refusal_of(error: Exception) -> Refusal:
    """What an exception from below means to a client. Of what nobody foresaw the client learns nothing; the log has its name."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, Overloaded):
        return Refusal(429, "overloaded", str(error), retry_after=error.retry_after)
    if isinstance(error, Closed):
        return Refusal(503, "draining", "the server is shutting down", retry_after=5)
    if isinstance(error, Failed):
        return Refusal(500, "model_failed", "the model could not do this; the server's log says why")
    if isinstance(error, ValueError | TwofoldError):
        code, hint = next((told for words, told in TOLD.items() if words in str(error)), ("invalid", ""))
        return Refusal(422, code, f"{error}{hint}")
    log.error("unforeseen %s: %s", type(error).__name__, error, exc_info=error)
    return Refusal(500, "failed", "something went wrong inside; the server's log says what")


TOLD = {
    "lone surrogate": ("lone_surrogate", ""),
    "holds the token": ("unknown_token", "; ids of another tokenizer mean nothing here (LangChain: check_embedding_ctx_length=False)"),
    "pairs are longer": ("too_long", ""),
}
"""Words of an error from below → its code, and what to do about it."""
SPECIFIC = {
    "string_unicode": "lone_surrogate",
    "nul_character": "nul_character",
    "empty": "empty",
    "string_too_long": "too_long",
    "too_long": "too_many",
    "too_short": "empty",
    "missing": "missing",
    "int_type": "wrong_type",
    "string_type": "wrong_type",
    "list_type": "wrong_type",
    "dict_type": "wrong_type",
    "bool_type": "wrong_type",
    "model_attributes_type": "wrong_type",
}
"""pydantic's name of a problem → our code; of several, the one that stands first here is told."""


def validation(problems: Sequence[Mapping[str, Any]]) -> Refusal:
    """The most telling of pydantic's problems, without the value that was sent."""
    if any(problem["type"] == "json_invalid" for problem in problems):
        return Refusal(400, "bad_json", "the body is not valid JSON")
    forms = {_form(problem): [each for each in problems if _form(each) == _form(problem)] for problem in problems}
    meant = [own for own in forms.values() if not any(each["type"] == "missing" for each in own)]
    problems = meant[0] if len(forms) > 1 and meant else problems  # of two forms of a body the one that has its own field
    ranks = {kind: rank for rank, kind in enumerate(SPECIFIC)}
    first = min(problems, key=lambda problem: ranks.get(problem["type"], len(ranks)))
    place = [str(part) for part in first["loc"] if part not in ("body", "header") and not str(part).endswith(FORM)]
    field = next((part for part in place if part.isidentifier()), None)
    code = SPECIFIC.get(first["type"], "invalid")
    said = str(first["msg"]).removeprefix("Value error, ")
    if code in ("wrong_type", "empty") and sum(field in problem["loc"] for problem in problems) > 1:
        said = "none of the forms that it may have"
    return Refusal(422, code, f"{field or 'the body'}: {said}", param=field)


FORM = "Request"
"""How the names of bodies end, which pydantic puts before a field where a body has several forms."""


def _form(problem: Mapping[str, Any]) -> str:
    return next((str(part) for part in problem["loc"] if str(part).endswith(FORM)), "")


def install(app: FastAPI) -> None:
    """Makes every error of the application one of these."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return answer(validation(error.errors()))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 400:  # of a body that is nested too deeply, or is no text, the framework says only that it failed
            return answer(Refusal(400, "bad_json", "the body is not valid JSON"))
        found = answer(Refusal(error.status_code, CODES.get(error.status_code, "failed"), str(error.detail)))
        found.headers.update(error.headers or {})
        return found

    async def other(_: Request, error: Exception) -> JSONResponse:
        return answer(refusal_of(error))

    for kind in (Refusal, Overloaded, Closed, Failed, ValueError, TwofoldError, Exception):
        app.add_exception_handler(kind, other)
