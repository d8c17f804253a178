"""What is counted, and what is no label."""

from __future__ import annotations

import httpx2

from twofold.serve.service import Service


def test_requests_passes_tokens_and_cuts_are_counted(service: Service, client: httpx2.Client) -> None:
    look = service.metrics.registry.get_sample_value
    before = {name: look("twofold_tokens_total", {"task": name}) or 0 for name in ("retrieve", "rerank")}
    cut = look("twofold_truncated_total", {"what": "texts"}) or 0
    used = client.post("/v1/embeddings", json={"input": ["a fox", "lazy " * 90]}).json()["usage"]
    client.post("/rerank", json={"query": "a", "documents": ["fox"]})
    client.get("/no/such/place")
    text = client.get("/metrics").text
    assert (look("twofold_tokens_total", {"task": "retrieve"}) or 0) - before["retrieve"] == used["total_tokens"]
    assert (look("twofold_tokens_total", {"task": "rerank"}) or 0) > before["rerank"]
    assert (look("twofold_truncated_total", {"what": "texts"}) or 0) - cut == 1
    assert 'route="/v1/embeddings",status="200"' in text and 'twofold_queue_tokens{priority="bulk"} 0.0' in text
    assert "/no/such/place" not in text and 'route="none",status="404"' in text
    assert "process_resident_memory_bytes" in text
