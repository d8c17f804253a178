"""Errors have one form, a code each, and nothing of what was sent or of the inside."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import httpx2
import psutil
import pytest

from tests.serve.conftest import served
from twofold.model.system import System
from twofold.serve.refusals import refusal_of
from twofold.serve.service import Loaded, Service

SECRET = "sphinx of black quartz"
LONG = "a" * (300 << 10)
EMBED, RERANK, SEARCH = "/v1/embeddings", "/rerank", "/v1/search"
BAD: list[tuple[str, bytes | Any, int, str]] = [
    (EMBED, {"input": ""}, 422, "empty"),
    (EMBED, {"input": "   "}, 422, "empty"),
    (EMBED, {"input": []}, 422, "empty"),
    (EMBED, {"input": [[]]}, 422, "empty"),
    (EMBED, {"input": ["a", ""]}, 422, "empty"),
    (EMBED, {"input": "a\0b"}, 422, "nul_character"),
    (EMBED, b'{"input": "\\ud800"}', 422, "lone_surrogate"),
    (EMBED, b'{"input": ["a", "b\\udfff"]}', 422, "lone_surrogate"),
    (RERANK, b'{"query": "\\ud800", "documents": ["a"]}', 422, "lone_surrogate"),
    (EMBED, {"input": LONG}, 422, "too_long"),
    (EMBED, {"input": "a" * (10 << 20)}, 413, "too_large"),
    (EMBED, {"input": ["a"] * 100_000}, 422, "too_many"),
    (RERANK, {"query": "a", "documents": ["b"] * 1001}, 422, "too_many"),
    (RERANK, {"query": "a" * 9000, "documents": ["b"]}, 422, "too_long"),
    (EMBED, {"input": [10**9]}, 422, "unknown_token"),
    (EMBED, {"input": [2**63]}, 422, "wrong_type"),
    (EMBED, {"input": [-1]}, 422, "wrong_type"),
    (EMBED, {"input": 5}, 422, "wrong_type"),
    (EMBED, {"input": None}, 422, "wrong_type"),
    (EMBED, {"input": {"a": 1}}, 422, "wrong_type"),
    (EMBED, {"input": [1, "a"]}, 422, "wrong_type"),
    (EMBED, {}, 422, "missing"),
    (EMBED, [], 422, "wrong_type"),
    (EMBED, "a", 422, "wrong_type"),
    (EMBED, b"", 422, "missing"),
    (EMBED, b'{"input": "a"', 400, "bad_json"),
    (EMBED, b'{"input": "\xff\xfe"}', 400, "bad_json"),
    (EMBED, b"\x1f\x8b\x08\x00" + bytes(1000), 400, "bad_json"),
    (EMBED, b"[" * 100_000, 400, "bad_json"),
    (EMBED, b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400, "bad_json"),
    (EMBED, b'{"input": "a", "dimensions": NaN}', 422, "wrong_type"),
    (EMBED, b'{"input": "a", "dimensions": 1e999}', 422, "wrong_type"),
    (EMBED, {"input": "a", "dimensions": 0}, 422, "invalid"),
    (EMBED, {"input": "a", "dimensions": 33}, 422, "too_many_dimensions"),
    (EMBED, {"input": "a", "dimensions": "8"}, 422, "wrong_type"),
    (EMBED, {"input": "a", "encoding_format": "hex"}, 422, "invalid"),
    (EMBED, {"input": "a", "model": "../../etc/passwd"}, 404, "model_not_found"),
    (EMBED, {"input": "a", "model": "tiny:legal"}, 404, "model_not_found"),
    (RERANK, {"query": "a", "documents": ["b"], "top_n": 0}, 422, "invalid"),
    (RERANK, {"query": "a", "documents": ["b"], "top_n": -1}, 422, "invalid"),
    (RERANK, {"query": "a", "documents": ["b"], "top_n": 2**63}, 422, "invalid"),
    (RERANK, {"query": "a"}, 422, "missing"),
    (RERANK, {"query": " ", "documents": ["b"]}, 422, "empty"),
    (SEARCH, {"query": "a", "top_k": 0}, 422, "invalid"),
    (SEARCH, {"query": "a", "top_k": 2**63}, 422, "invalid"),
    (SEARCH, {"query": "a", "mode": "magic"}, 422, "invalid"),
    (SEARCH, {"query": "a", "where": {"": 1}}, 422, "invalid"),
    (SEARCH, {"query": "a", "where": {"a": {"b": 1}}}, 422, "wrong_type"),
]
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
