"""The page at `/` and the description of the API at `/docs`: files beside this one, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter, Response

FOLDER = Path(__file__).parent / "static"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
OPEN = {name: name[1:] for name in ("/page.css", "/page.js", "/lists.js", "/heat.js", "/icon.svg")} | {"/": "page.html"}
"""What the page is made of."""
FILES = {**OPEN, "/docs": "docs.html", "/docs.css": "docs.css", "/docs.js": "docs.js"}
"""Path → file. What is not here is not served: no path of a client ever reaches the disk."""


def page_routes() -> APIRouter:
    """One route a file; they are no part of the API and not in its description."""
    router = APIRouter()
    for path, name in FILES.items():
        router.add_api_route(path, _reader(FOLDER / name), include_in_schema=False, name=name)
    return router


def _reader(file: Path) -> Callable[[], Awaitable[Response]]:
    async def read() -> Response:
        return Response(file.read_bytes(), headers={"Content-Type": f"{KINDS[file.suffix]}; charset=utf-8"})

    return read
