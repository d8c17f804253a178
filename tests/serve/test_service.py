"""From loading to the end."""

from __future__ import annotations

import logging
import threading

import pytest

from tests.serve.conftest import served
from twofold.errors import CheckpointError
from twofold.model.system import System
from twofold.serve.refusals import Refusal
from twofold.serve.service import Loaded, Service


def test_it_is_ready_when_it_is_loaded(system: System) -> None:
    go = threading.Event()
    with served(None) as (service, client):

        def load() -> Loaded:
            go.wait(5)
            return Loaded({"": system})

        thread = service.start(load)
        assert client.get("/ready").status_code == 503
        go.set()
        thread.join(10)
        assert client.get("/ready").json() == {"status": "ok"} and "twofold_ready 1.0" in client.get("/metrics").text
        service.drain()
        refused = client.post("/v1/embeddings", json={"input": "a"})
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "draining"
        assert client.get("/health").json() == {"status": "draining"}


def test_what_cannot_be_loaded_is_said(caplog: pytest.LogCaptureFixture) -> None:
    def load() -> Loaded:
        raise CheckpointError("my/model: torn")

    service = Service("any")
    with caplog.at_level(logging.CRITICAL):
        service.start(load).join(5)
    refusal = service.why_not()
    assert service.status == "failed" and isinstance(service.error, CheckpointError) and refusal is not None and refusal.code == "failed"
    with pytest.raises(Refusal, match="could not be loaded"):
        _ = service.engine
    assert service.close(0)


def test_variants_have_names(system: System) -> None:
    service = Service("mine")
    service.open(Loaded({"": system, "legal": system}))
    try:
        assert service.names() == ["mine", "mine:legal"]
        assert [service.variant(name) for name in (None, "", "mine", "mine:legal")] == ["", "", "", "legal"]
        with pytest.raises(Refusal, match="there is mine, mine:legal"):
            service.variant("mine:medical")
    finally:
        service.close(1)
