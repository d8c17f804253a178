"""Waiting for the model on behalf of a client, who may go away: then what was asked for is not done."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any

from fastapi import Request

from twofold.serve.engine import Waiting
from twofold.serve.refusals import Refusal


def attentive(request: Request) -> Waiting:
    """Waits for the work or for the end of the connection, whichever is first. Raises Refusal where the client is gone."""

    async def wait(future: Future[list[Any]]) -> list[Any]:
        answer, gone = asyncio.wrap_future(future), asyncio.ensure_future(_gone(request))
        both: set[asyncio.Future[Any]] = {answer, gone}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise Refusal(499, "client_gone", "the client went away")
            return answer.result()
        finally:
            gone.cancel()
            answer.cancel()  # and with it the work; nothing happens where it is done

    return wait


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
