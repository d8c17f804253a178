"""Embeddings, reranking and scores over HTTP: the model's own numbers, in the shapes that clients expect."""

from __future__ import annotations

import base64
import threading
from typing import Any

import httpx2
import numpy as np
import pytest

from tests.serve.conftest import DOCUMENTS, TEXTS, served
from tests.tiny_trial import tiny_unified
from twofold.model.state import fingerprint, sha256_of
from twofold.model.system import System
from twofold.model.unified import UnifiedModel
from twofold.serve.opening import systems_of
from twofold.serve.service import Loaded, Service

QUERY = "what is red"


def vectors(answer: httpx2.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return np.array([row["embedding"] for row in answer.json()["data"]])


def test_embeddings_are_the_models(client: httpx2.Client, model: UnifiedModel) -> None:
    answer = client.post("/v1/embeddings", json={"input": TEXTS, "model": "tiny"})
    assert abs(vectors(answer) - model.encode(TEXTS)).max() < 1e-6
    body = answer.json()
    assert [row["index"] for row in body["data"]] == list(range(len(TEXTS))) and body["model"] == "tiny"
    usage = body["usage"]
    assert usage["prompt_tokens"] == usage["total_tokens"] == model.tokens.texts(TEXTS).tokens and usage["truncated"] == 1
    assert abs(vectors(client.post("/v1/embeddings", json={"input": TEXTS[0]})) - model.encode(TEXTS[:1])).max() < 1e-6


def test_embeddings_as_base64_shorter_and_from_token_ids(client: httpx2.Client, model: UnifiedModel) -> None:
    rows = client.post("/v1/embeddings", json={"input": TEXTS, "encoding_format": "base64"}).json()["data"]
    decoded = np.stack([np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in rows])
    assert abs(decoded - model.encode(TEXTS)).max() < 1e-6
    short = vectors(client.post("/v1/embeddings", json={"input": TEXTS, "dimensions": 5}))
    assert abs(short - model.encode(TEXTS, dims=5)).max() < 1e-6
    ids = [model.tokens.tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
    assert abs(vectors(client.post("/v1/embeddings", json={"input": ids})) - model.encode(TEXTS)).max() < 1e-6
    assert abs(vectors(client.post("/v1/embeddings", json={"input": ids[0]})) - model.encode(TEXTS[:1])).max() < 1e-6


def test_queries_and_documents_have_their_prompts(system: System, tmp_path: Any) -> None:
    model = system.embedder
    before = dict(model.tokens.prompts)
    model.tokens.prompts["query"] = "what is "
    try:
        with served(Loaded({"": system})) as (_, client):
            for word in ("query", "search_query"):
                got = vectors(client.post("/v1/embeddings", json={"input": ["a fox"], "input_type": word}))
                assert abs(got - model.encode_queries(["a fox"])).max() < 1e-6
            assert abs(vectors(client.post("/v1/embeddings", json={"input": ["a fox"]})) - model.encode(["a fox"])).max() < 1e-6
    finally:
        model.tokens.prompts = before


def test_rerank_in_coheres_shape(client: httpx2.Client, model: UnifiedModel) -> None:
    ranked = model.rank(QUERY, DOCUMENTS)
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        body = client.post(path, json={"query": QUERY, "documents": DOCUMENTS, "model": "tiny", "raw_scores": True}).json()
        assert [row["index"] for row in body["results"]] == [each.index for each in ranked]
        assert np.allclose([row["relevance_score"] for row in body["results"]], [each.score for each in ranked], atol=1e-4)
        assert all("document" not in row for row in body["results"]) and body["id"] and body["meta"]["api_version"]
    body = client.post(
        "/v2/rerank", json={"query": QUERY, "documents": [{"text": text} for text in DOCUMENTS], "return_documents": True, "top_n": 2}
    )
    rows = body.json()["results"]
    assert len(rows) == 2 and rows[0]["document"]["text"] == ranked[0].document
    assert all(0 < row["relevance_score"] < 1 for row in rows) and rows[0]["relevance_score"] >= rows[1]["relevance_score"]


def test_rerank_in_teis_shape(client: httpx2.Client, model: UnifiedModel) -> None:
    ranked = model.rank(QUERY, DOCUMENTS)
    rows = client.post("/rerank", json={"query": QUERY, "texts": DOCUMENTS, "raw_scores": True, "return_text": True}).json()
    assert [row["text"] for row in rows] == [each.document for each in ranked]
    assert np.allclose([row["score"] for row in rows], [each.score for each in ranked], atol=1e-4)
    assert client.post("/rerank", json={"query": QUERY, "texts": DOCUMENTS}).json()[0].keys() == {"index", "score"}
    refused = client.post("/rerank", json={"query": QUERY, "texts": DOCUMENTS, "truncate": False})
    assert refused.status_code == 422 and "1 of 4 pairs are longer" in refused.json()["error"]["message"]


def test_scores_are_the_models_own(client: httpx2.Client, model: UnifiedModel) -> None:
    wanted = model.score([(QUERY, text) for text in DOCUMENTS])
    for body in ({"text_1": QUERY, "text_2": DOCUMENTS}, {"queries": [QUERY] * 4, "documents": DOCUMENTS}):
        for path in ("/score", "/v1/score"):
            rows = client.post(path, json=body).json()["data"]
            assert np.allclose([row["score"] for row in rows], wanted, atol=1e-4)
    assert len(client.post("/score", json={"text_1": "a", "text_2": "fox"}).json()["data"]) == 1


def test_models_are_listed_and_others_are_not_found(client: httpx2.Client, model: UnifiedModel) -> None:
    (card,) = client.get("/v1/models").json()["data"]
    assert card["id"] == "tiny" and card["dimensions"] == 32 and card["tasks"] == ["rerank", "retrieve"]
    refused = client.post("/v1/embeddings", json={"input": "a", "model": "gpt-5"})
    assert refused.status_code == 404 and refused.json()["error"]["code"] == "model_not_found"
    assert "tiny" in refused.json()["error"]["message"]


def test_listing_the_models_reads_no_weights(model: UnifiedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their fingerprints are those of the opening: hundreds of megabytes are not hashed while everybody waits."""
    tasks: dict[str, Any] = {"retrieve:legal": {}, "rerank:legal": {}}
    domains = tiny_unified(model.spec.backbone, **tasks).eval()
    wanted = {"tiny": fingerprint(domains, "retrieve"), "tiny:legal": fingerprint(domains, "retrieve:legal")}
    read: list[int] = []
    monkeypatch.setattr("twofold.model.state.sha256_of", lambda tensors: (read.append(len(tensors)), sha256_of(tensors))[1])
    with served(Loaded(systems_of(System.of(domains)))) as (_, client):
        assert read
        read.clear()
        for _ in range(2):
            assert {card["id"]: card["fingerprint"] for card in client.get("/v1/models").json()["data"]} == wanted
    assert not read and len(set(wanted.values())) == 2


def test_long_lists_are_split_inside(client: httpx2.Client, model: UnifiedModel, service: Service) -> None:
    texts = [f"{text} {i % 7}" for i in range(300) for text in TEXTS[:3]]
    assert abs(vectors(client.post("/v1/embeddings", json={"input": texts})) - model.encode(texts)).max() < 1e-5
    assert service.metrics.registry.get_sample_value("twofold_pass_seconds_count") > 2


def test_many_clients_at_once_get_their_own_answers(address: str, model: UnifiedModel) -> None:
    """Embeddings and scores of many clients share passes; each client gets what the model gives it alone."""
    wrong: list[str] = []

    def ask(n: int) -> None:
        with httpx2.Client(base_url=address, timeout=60) as own:
            for i in range(6):
                text = f"{TEXTS[(n + i) % 5]} {'abcdefgh'[n]}"
                if abs(vectors(own.post("/v1/embeddings", json={"input": text})) - model.encode([text])).max() > 1e-5:
                    wrong.append(text)
                scores = own.post("/score", json={"text_1": text, "text_2": DOCUMENTS}).json()["data"]
                if not np.allclose([row["score"] for row in scores], model.score([(text, other) for other in DOCUMENTS]), atol=1e-4):
                    wrong.append(f"score of {text}")

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_reranker_that_reads_lists_is_served_too(system: System, model: UnifiedModel) -> None:
    listwise = tiny_unified(
        model.spec.backbone, rerank={"form": "listwise", "k": 2, "document_tokens": 6, "before": "", "query": ""}
    ).eval()  # type: ignore[arg-type]
    with served(Loaded({"": System.of(listwise)})) as (_, client):
        rows = client.post("/score", json={"text_1": "a fox", "text_2": DOCUMENTS}).json()["data"]
        assert np.allclose([row["score"] for row in rows], listwise.score([("a fox", text) for text in DOCUMENTS]), atol=1e-4)


@pytest.mark.parametrize("priority", ["bulk", "interactive", None])
def test_a_client_may_stand_back(client: httpx2.Client, priority: str | None) -> None:
    headers = {"X-Priority": priority} if priority else {}
    assert client.post("/v1/embeddings", json={"input": "a fox"}, headers=headers).status_code == 200
