"""Waiting ends with the work or with the client."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any

import pytest
from fastapi import Request

from twofold.serve.refusals import Refusal
from twofold.serve.waiting import attentive


def request(gone: asyncio.Event) -> Request:
    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http"}, receive)


def test_the_work_is_waited_for() -> None:
    async def both() -> list[Any]:
        future: Future[list[Any]] = Future()
        asyncio.get_running_loop().call_later(0.01, future.set_result, [1])
        return await attentive(request(asyncio.Event()))(future)

    assert asyncio.run(both()) == [1]


def test_when_the_client_goes_the_work_is_cancelled() -> None:
    future: Future[list[Any]] = Future()

    async def both() -> None:
        gone = asyncio.Event()
        asyncio.get_running_loop().call_later(0.01, gone.set)
        await attentive(request(gone))(future)

    with pytest.raises(Refusal, match="went away"):
        asyncio.run(both())
    assert future.cancelled()
