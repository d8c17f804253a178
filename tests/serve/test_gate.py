"""Who gets in: every role on every route; foreign hosts and pages; bodies that are too long, too slow, or not what they say."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.serve.conftest import served
from twofold.model.system import System
from twofold.serve import gate
from twofold.serve.app import make_app
from twofold.serve.gate import NEEDS, Rules, is_local
from twofold.serve.keys import Key, Keys, sha256
from twofold.serve.service import Loaded, Service

WORDS = {"use": "u" * 24, "admin": "a" * 24}
KEYS = Keys([Key("someone", "use", sha256(WORDS["use"])), Key("operator", "admin", sha256(WORDS["admin"]))])
ROLES = {"nobody": None, "stranger": "x" * 24, **WORDS}
BODIES = {
    "/v1/embeddings": {"input": "a fox"},
    "/rerank": {"query": "a", "documents": ["fox"]},
    "/v1/rerank": {"query": "a", "documents": ["fox"]},
    "/v2/rerank": {"query": "a", "documents": ["fox"]},
    "/score": {"text_1": "a", "text_2": "fox"},
    "/v1/score": {"text_1": "a", "text_2": "fox"},
    "/v1/search": {"query": "a fox"},
    "/v1/answer": {"question": "a fox"},
}


def routes() -> list[str]:
    """Every path that the application has, so that a new one is in the matrix by itself."""
    found: set[str] = set()
    waiting: list[Any] = list(make_app(Service("any")).app.routes)  # type: ignore[attr-defined]
    while waiting:
        route = waiting.pop()
        waiting += route.original_router.routes if hasattr(route, "original_router") else []
        found |= {route.path} if hasattr(route, "path") else set()
    return sorted(found)


@pytest.fixture(scope="module")
def guarded(system: System) -> Iterator[httpx2.Client]:
    with served(Loaded({"": system}), Rules(KEYS)) as (_, client):
        yield client


def asked(client: httpx2.Client, path: str, word: str | None) -> httpx2.Response:
    headers = {} if word is None else {"Authorization": f"Bearer {word}"}
    return client.post(path, json=BODIES[path], headers=headers) if path in BODIES else client.get(path, headers=headers)


def test_the_table_names_paths_that_exist() -> None:
    assert set(NEEDS) | set(BODIES) | {"/v1/models"} == set(routes())


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("path", routes())
def test_every_role_on_every_route(path: str, role: str, guarded: httpx2.Client) -> None:
    need, status = NEEDS.get(path, "use"), asked(guarded, path, ROLES[role]).status_code
    if need == "nobody":
        assert status == 200
    elif role in ("nobody", "stranger"):
        assert status == 401
    elif need == "admin" and role == "use":
        assert status == 403
    else:
        assert status == (404 if path in ("/v1/search", "/v1/answer") else 200)  # there is no index here


@pytest.mark.parametrize("header", ["Bearer", "Basic YTpi", "bearer", f"Token {WORDS['use']}", WORDS["use"]])
def test_a_header_that_is_none(header: str, guarded: httpx2.Client) -> None:
    answer = guarded.get("/v1/models", headers={"Authorization": header})
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"


def test_unknown_paths_need_a_key_too(guarded: httpx2.Client) -> None:
    assert asked(guarded, "/nothing", None).status_code == 401
    assert asked(guarded, "/nothing", WORDS["use"]).status_code == 404


def test_without_keys_everything_is_open_to_this_machine(client: httpx2.Client) -> None:
    assert all(client.get(path).status_code == 200 for path in (*NEEDS, "/v1/models"))


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Host": "evil.example"}, 421, "wrong_host"),
        ({"Host": "127.0.0.1.evil.example:80"}, 421, "wrong_host"),
        ({"Host": "["}, 421, "wrong_host"),
        ({"Origin": "http://evil.example"}, 403, "foreign_origin"),
        ({"Origin": "null"}, 403, "foreign_origin"),
        ({"Content-Type": "text/plain"}, 415, "not_json"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "not_json"),
        ({"Content-Encoding": "gzip"}, 415, "compressed"),
    ],
)
def test_foreign_hosts_pages_and_bodies(headers: dict[str, str], status: int, code: str, client: httpx2.Client) -> None:
    given = {"Content-Type": "application/json", **headers}
    answer = client.post("/v1/embeddings", content=b'{"input": "a fox"}', headers=given)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert client.get("/health").status_code == 200


def test_its_own_page_and_other_names_of_this_machine_are_welcome(client: httpx2.Client) -> None:
    own = str(client.base_url).rstrip("/")
    assert client.post("/v1/embeddings", json={"input": "a"}, headers={"Origin": own}).status_code == 200
    assert client.get("/ready", headers={"Host": "localhost:1234"}).status_code == 200
    assert client.get("/ready", headers={"Host": "[::1]:1234"}).status_code == 200


def test_answers_tell_browsers_to_ask_nobody_else(client: httpx2.Client) -> None:
    for path in ("/", "/v1/models", "/nothing"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert (headers["x-content-type-options"] == "nosniff" and "server" not in headers) or headers["server"] == "uvicorn"


def test_long_bodies_are_refused_declared_or_not(client: httpx2.Client) -> None:
    body = json.dumps({"input": "a" * (2 << 20)}).encode()
    declared = client.post("/v1/embeddings", content=body, headers={"Content-Type": "application/json"})
    parts = (body[i : i + 65536] for i in range(0, len(body), 65536))
    streamed = client.post("/v1/embeddings", content=parts, headers={"Content-Type": "application/json"})
    assert [answer.status_code for answer in (declared, streamed)] == [413, 413]
    assert declared.json()["error"]["code"] == "too_large"
    assert client.get("/ready").status_code == 200


def test_a_slow_body_is_not_waited_for(client: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "BODY_SECONDS", 0.1)
    with socket.create_connection((client.base_url.host, client.base_url.port)) as slow:
        head = "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        slow.sendall(head.encode())
        slow.settimeout(10)
        assert b" 408 " in slow.recv(4096)


def test_while_there_is_no_model_only_the_server_answers() -> None:
    with served(None) as (service, client):
        for path, body in BODIES.items():
            answer = client.post(path, json=body)
            assert answer.status_code == 503 and answer.headers["retry-after"] and answer.json()["error"]["code"] == "loading"
        assert client.get("/health").json() == {"status": "loading"} and client.get("/ready").status_code == 503
        assert "twofold_ready 0.0" in client.get("/metrics").text
        assert client.get("/").status_code == 200 and service.status == "loading"


def test_clients_that_go_away_leave_nothing_behind(service: Service, client: httpx2.Client) -> None:
    """Half-sent heads and bodies, and whole requests whose answers nobody waits for."""
    body = json.dumps({"query": "what is it", "documents": ["a lazy dog " * 8] * 300}).encode()
    head = f"POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for i in range(60):
        with socket.create_connection((client.base_url.host, client.base_url.port)) as gone:
            gone.sendall((head + body)[: (20, len(head) + 50, len(head) + len(body))[i % 3]])
    end = time.monotonic() + 20
    while any(service.engine.queue.load.values()) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(service.engine.queue.load.values())
    assert client.post("/v1/embeddings", json={"input": "a fox"}).status_code == 200


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("example.org", False)]
)
def test_what_is_this_machine(host: str, local: bool) -> None:
    assert is_local(host) is local
