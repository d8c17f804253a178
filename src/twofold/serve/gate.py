"""What every request goes through before a route sees it, as plain ASGI: who asks, from where, how much, and is the model there.

In this order: the host that was asked for and the page that asks (against DNS rebinding and foreign pages), the key and its role,
whether the model is there, and the body: JSON, not compressed, not too long, and not too slow. Every answer carries headers that keep a
browser from guessing and from asking anybody else. Nothing of a body, a query or a key is ever logged.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from twofold.serve.keys import Keys, Role
from twofold.serve.page import FILES, OPEN
from twofold.serve.refusals import Refusal, answer

Need: TypeAlias = Literal["nobody"] | Role
NEEDS: dict[str, Need] = {
    **dict.fromkeys((*OPEN, "/health", "/ready"), "nobody"),
    **dict.fromkeys((*FILES.keys() - OPEN.keys(), "/metrics", "/openapi.json"), "admin"),
}
"""Path → who may come; `use` where nothing is said. The page is only a page: what it asks for needs a key."""
WITHOUT_MODEL = frozenset(NEEDS)
"""Paths that are answered whatever the model does."""
BODY_SECONDS = 10.0
"""A body that is not there by then is not waited for."""
DRAIN_BYTES = 16 << 20
"""Of a refused body, so much is read and thrown away, so that the client gets to read the refusal."""
LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
form-action 'none'; frame-ancestors 'none'"
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Rules:
    """What is let in."""

    keys: Keys = field(default_factory=Keys)
    hosts: frozenset[str] | None = LOCAL
    """Names that a request may be addressed to; None: any."""
    max_body: int = 2 << 20
    """Bytes."""


def is_local(host: str) -> bool:
    """Whether an address to listen at is of this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Gate:
    """`why_not()` says why the model cannot be asked, if so; `seen` is told of every request (route, status, seconds)."""

    def __init__(
        self, app: ASGIApp, rules: Rules, why_not: Callable[[], Refusal | None], seen: Callable[[str, int, float], None] = lambda *_: None
    ) -> None:
        self.app, self.rules, self.why_not, self.seen = app, rules, why_not, seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        begun, status, told = time.perf_counter(), 500, False

        async def dressed(message: Message) -> None:
            nonlocal status, told
            if message["type"] == "http.response.start":
                status = message["status"]
                there = {name.lower() for name, _ in message.get("headers", [])}
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in there]
                message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)
            told = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            body = await self._admitted(scope, receive)
            await self.app(scope, _replayed(body, receive), dressed)
        except Refusal as refusal:
            await answer(refusal)(scope, receive, dressed)
        except Exception:
            if not told:  # Starlette raises again what was answered and logged, and the server would hang up on the client's next request
                raise
        finally:
            self.seen(_route(scope), status, time.perf_counter() - begun)

    async def _admitted(self, scope: Scope, receive: Receive) -> bytes:
        """The body of a request that may come in. Raises Refusal."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
        try:
            self._check(scope, headers)
        except Refusal:
            if scope["method"] not in ("GET", "HEAD"):
                await _thrown_away(receive)
            raise
        return await self._body(headers, receive)

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """All that can be said before the body is read."""
        host = headers.get("host", "")
        if self.rules.hosts is not None and (_hostname(f"//{host}") not in self.rules.hosts):
            raise Refusal(421, "wrong_host", "this server does not answer under that name; --allowed-host NAME allows one")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise Refusal(403, "foreign_origin", "a page of another origin may not use this server")
        self._check_key(scope["path"], headers)
        if scope["path"] not in WITHOUT_MODEL and (refusal := self.why_not()) is not None:
            raise refusal
        if scope["method"] == "POST" and (headers.get("content-length", "0") != "0" or "transfer-encoding" in headers):
            if headers.get("content-encoding", "identity").lower() != "identity":
                raise Refusal(415, "compressed", "compressed bodies are not taken: send plain JSON")
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                raise Refusal(415, "not_json", "send the body as Content-Type: application/json")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self.rules.max_body:
            raise self._too_large()

    def _check_key(self, path: str, headers: Mapping[str, str]) -> None:
        need = NEEDS.get(path, "use")
        if not self.rules.keys or need == "nobody":
            return
        scheme, _, word = headers.get("authorization", "").partition(" ")
        key = self.rules.keys.find(word.strip()) if scheme.lower() == "bearer" and word.strip() else None
        if key is None:
            raise Refusal(401, "wrong_key" if word else "no_key", "send a key of this server as Authorization: Bearer KEY")
        if need == "admin" and key.role != "admin":
            raise Refusal(403, "not_allowed", "this key is for using the model; this path is for admin keys")

    async def _body(self, headers: Mapping[str, str], receive: Receive) -> bytes:
        """All of it, within the limits. Raises Refusal."""
        if "content-length" not in headers and "transfer-encoding" not in headers:
            return b""
        parts, size = [], 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for part in _parts(receive):
                    size += len(part)
                    if size <= self.rules.max_body:
                        parts.append(part)
                    elif size > self.rules.max_body + DRAIN_BYTES:
                        break
        except TimeoutError:
            raise Refusal(408, "too_slow", f"the body was not there within {BODY_SECONDS:.0f} s") from None
        if size > self.rules.max_body:
            raise self._too_large()
        return b"".join(parts)

    def _too_large(self) -> Refusal:
        return Refusal(413, "too_large", f"a body may have {self.rules.max_body} bytes: send fewer texts at a time")


async def _parts(receive: Receive) -> Any:
    """The body, piece by piece. Raises Refusal where the client goes away."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(499, "client_gone", "the client went away")
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


async def _thrown_away(receive: Receive) -> None:
    """Reads what a refused client goes on sending, for a while."""
    left = DRAIN_BYTES
    try:
        async with asyncio.timeout(2.0):
            async for part in _parts(receive):
                left -= len(part)
                if left < 0:
                    return
    except (TimeoutError, Refusal):
        return


def _replayed(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """A `receive` that gives the body that was read already, and then what the server gives."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


def _hostname(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def _route(scope: Scope) -> str:
    """The path as it was declared: what a client makes up is no label."""
    return str(getattr(scope.get("route"), "path", "none"))
