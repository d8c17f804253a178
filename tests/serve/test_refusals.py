"""Errors have one form, a code each, and nothing of what was sent or of the inside."""

from __future__ import annotations

import http.client
import json
import logging
import time
from typing import Any

import httpx2
import psutil
import pytest

from bench._bad_input import BAD
from tests.serve.conftest import served
from twofold.model.system import System
from twofold.serve.refusals import refusal_of
from twofold.serve.service import Loaded, Service

SECRET = "sphinx of black quartz"
EMBED, RERANK = "/v1/embeddings", "/rerank"
GOOD: list[Any] = [
    "\u202eright to left\u202c",
    "👩\u200d👩\u200d👧\u200d👦",
    "\ufeffbom",
    "e\u0301" * 300,
    "a" * 199_999,
    "\u0000".replace("\0", "\x7f"),
]


def sent(client: httpx2.Client, path: str, body: Any) -> httpx2.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(path, content=content, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize(("path", "body", "status", "code"), BAD, ids=lambda value: None)
def test_bad_input_has_its_code(path: str, body: Any, status: int, code: str, client: httpx2.Client) -> None:
    answer = sent(client, path, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), error
    assert error["message"] and set(error) == {"message", "type", "param", "code"} and len(answer.content) < 1000


def test_bad_input_costs_little_and_the_next_request_is_answered(client: httpx2.Client) -> None:
    for path, body, _, _ in BAD[:4]:
        sent(client, path, body)
    process, begun = psutil.Process(), time.process_time()
    before = process.memory_info().rss
    for path, body, _, _ in BAD:
        sent(client, path, body)
    assert process.memory_info().rss - before < 60e6  # client and server are one process here
    assert (time.process_time() - begun) / len(BAD) < 1.0
    assert client.post(EMBED, json={"input": "a fox"}).status_code == 200


@pytest.mark.parametrize("text", GOOD, ids=lambda value: None)
def test_strange_text_is_text(text: str, client: httpx2.Client) -> None:
    assert client.post(EMBED, json={"input": text}).status_code == 200


def test_of_two_keys_the_last_counts(client: httpx2.Client) -> None:
    assert len(sent(client, EMBED, b'{"input": ["a"], "input": ["b", "c"]}').json()["data"]) == 2


def test_nothing_that_was_sent_is_repeated_or_logged(client: httpx2.Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for body in ({"input": [SECRET, 5]}, {"input": SECRET, "dimensions": SECRET}, {"input": SECRET, "model": SECRET}):
            answer = client.post(EMBED, json=body, headers={"Authorization": f"Bearer {SECRET}"})
            assert answer.status_code in (404, 422) and SECRET not in answer.text
        client.post(EMBED, json={"input": SECRET})
    assert not [record for record in caplog.records if record.name.startswith("twofold") and SECRET in record.getMessage()]


def test_what_nobody_foresaw_is_told_without_its_inside(
    system: System, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("/home/somebody/secret")

    with served(Loaded({"": system})) as (service, client), caplog.at_level(logging.CRITICAL):
        monkeypatch.setattr(service.engine, "embed", broken)
        answer = client.post(EMBED, json={"input": "a"})
        assert answer.status_code == 500 and answer.json()["error"]["code"] == "failed" and "secret" not in answer.text
        monkeypatch.undo()
        monkeypatch.setattr(service.engine.worker, "run", broken)
        answer = client.post(EMBED, json={"input": "a"})
        assert answer.status_code == 500 and answer.json()["error"]["code"] == "model_failed" and "secret" not in answer.text
        monkeypatch.undo()
        assert client.post(EMBED, json={"input": "a"}).status_code == 200


def test_a_client_keeps_its_connection_after_an_error_inside(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that hangs up after a 500 resets what the client sends next."""

    def broken(*_: object, **__: object) -> None:
        raise KeyError("inside")

    with served(Loaded({"": system})) as (service, client):
        monkeypatch.setattr(service.engine, "embed", broken)
        connection = http.client.HTTPConnection(client.base_url.host, client.base_url.port, timeout=10)
        for _ in range(3):
            connection.request("POST", EMBED, json.dumps({"input": "a"}), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            assert answer.status == 500 and json.loads(answer.read())["error"]["code"] == "failed"
            time.sleep(0.1)  # for a server that hangs up to do so
        connection.close()


def test_a_refusal_says_when_to_come_back(service: Service, client: httpx2.Client) -> None:
    with service.engine.queue.admitted(10**9, "interactive"):
        answer = client.post(EMBED, json={"input": "a fox"})
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"] == {
        "message": f"the queue is full; try again in {answer.headers['retry-after']} s",
        "type": "rate_limit_error",
        "param": None,
        "code": "overloaded",
    }


def test_errors_of_below_keep_their_words() -> None:
    assert refusal_of(ValueError("dims 9: use 1 to 4")).message == "dims 9: use 1 to 4"
