"""Searches and answers over HTTP are the pipeline's own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.serve.conftest import served
from twofold.model.system import System
from twofold.search.pipeline import Pipeline
from twofold.search.reader import Reader
from twofold.serve.engine import Blocking
from twofold.serve.library import Library
from twofold.serve.service import Loaded, Service

QUERY = "what is a lazy dog"


@pytest.fixture
def client(searched: tuple[Service, httpx2.Client]) -> httpx2.Client:
    return searched[1]


@pytest.fixture
def pipeline(library: Library, reading: System) -> Pipeline:
    """Without a server."""
    return Pipeline(library.store, Reader.of(reading).callables)


def same(rows: list[dict[str, Any]], hits: Any) -> None:
    assert [row["id"] for row in rows] == [hit.id for hit in hits]
    for row, hit in zip(rows, hits, strict=True):
        assert row["rank"] == hit.rank and row["first_rank"] == hit.first_rank
        assert row["rerank_score"] == pytest.approx(hit.rerank_score, abs=1e-4) and row["text"] == hit.text


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_a_search_is_the_pipelines(mode: Any, client: httpx2.Client, pipeline: Pipeline) -> None:
    body = client.post("/v1/search", json={"query": QUERY, "top_k": 3, "mode": mode}).json()
    wanted = pipeline.search(QUERY, 3, 20, mode)
    same(body["hits"], wanted.hits)
    same(body["first"], wanted.first)
    assert body["candidates"] == wanted.candidates and {"retrieve", "rerank"} <= body["seconds"].keys() and body["routing"] is None


def test_conditions_and_no_reranking(client: httpx2.Client) -> None:
    body = client.post("/v1/search", json={"query": QUERY, "where": {"kind": ["f", "q"]}, "rerank": False}).json()
    assert {hit["document"] for hit in body["hits"]} == {"foxes", "queries"}
    assert all(hit["rerank_score"] is None for hit in body["hits"])


def test_explained_it_shows_the_routing_of_the_query_and_of_each_pair(client: httpx2.Client, library: Library) -> None:
    body = client.post("/v1/search", json={"query": QUERY, "explain": True}).json()
    look = library.reader.callables.routing
    assert look is not None
    alone, rows = look(QUERY, [f"{hit['title']} {hit['text']}" for hit in body["hits"]])
    assert body["routing"] == alone and [hit["routing"] for hit in body["hits"]] == list(rows)
    assert all(set(weights) == {"embedding", "reranking", "shared"} for weights in alone.values())


def test_an_answer_stands_where_it_says(client: httpx2.Client, reading: System) -> None:
    body = client.post("/v1/answer", json={"question": QUERY, "read": 2}).json()
    assert body["supported"] and body["text"] and body["read"] == 2 and body["reader"] == "extractive"
    texts = {hit["id"]: hit["text"] for hit in body["hits"]}
    for one in body["citations"]:
        assert texts[one["id"]][one["start"] : one["end"]] == one["quote"]
    best = reading.reranker.predict("answer", [(QUERY, body["hits"][0]["title"], body["hits"][0]["text"])])[0][0]
    assert best.score in [pytest.approx(value, abs=1e-3) for value in (body["score"], *(other["score"] for other in body["others"]))]
    assert "answer" in body["seconds"]


def test_many_searches_at_once_find_what_one_finds(client: httpx2.Client) -> None:
    queries = [f"{QUERY} {word}" for word in ("red", "fox", "over", "is") * 4]
    alone = {query: client.post("/v1/search", json={"query": query}).json()["hits"] for query in set(queries)}
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda query: client.post("/v1/answer", json={"question": query}).json()["hits"], queries))
    assert [[hit["id"] for hit in hits] for hits in found] == [[hit["id"] for hit in alone[query]] for query in queries]


def test_the_model_says_what_is_indexed(client: httpx2.Client) -> None:
    (card,) = client.get("/v1/models").json()["data"]
    assert card["passages"] == 4 and "answer" in card["tasks"]


def test_without_an_index_or_without_answers_it_says_so(
    live: tuple[Service, httpx2.Client], client: httpx2.Client, library: Library
) -> None:
    for path, name in (("/v1/search", "query"), ("/v1/answer", "question")):
        answer = live[1].post(path, json={name: "a"})
        assert answer.status_code == 404 and answer.json()["error"]["code"] == "no_index"
    before, library.answerer = library.answerer, None
    try:
        assert client.post("/v1/answer", json={"question": "a"}).json()["error"]["code"] == "no_answers"
    finally:
        library.answerer = before


def test_a_search_that_would_wait_too_long_is_refused(searched: tuple[Service, httpx2.Client], client: httpx2.Client) -> None:
    queue = searched[0].engine.queue
    with queue.admitted(10**9, "interactive"):
        answer = client.post("/v1/search", json={"query": QUERY})
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) > 0
    assert client.post("/v1/search", json={"query": QUERY}).status_code == 200 and not any(queue.load.values())


@pytest.mark.parametrize(("path", "body"), [("/v1/answer", {"question": QUERY}), ("/v1/search", {"query": QUERY, "explain": True})])
def test_told_to_stop_amid_a_search_the_server_finishes_it(
    path: str, body: dict[str, Any], reading: System, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer and the routing are asked of the model after the scores, when the server takes nothing new any more."""
    scored = Blocking.score
    with served(Loaded({"": reading}, library)) as (service, client):

        def and_then_told(model: Blocking, pairs: Any) -> Any:
            found = scored(model, pairs)
            service.drain()
            service.engine.worker.join(0.1)  # time to end, for a worker that thinks that nothing follows
            return found

        monkeypatch.setattr(Blocking, "score", and_then_told)
        answer = client.post(path, json=body, timeout=10)
        assert answer.status_code == 200 and answer.json()["hits"]
        assert client.post(path, json=body).json()["error"]["code"] == "draining"
        assert service.close(5)
