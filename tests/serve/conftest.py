"""A tiny model behind a real server on a free port of this machine."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from tests.tiny_trial import stirred, tiny_unified, write_backbone
from twofold.core.inject import Expert, LayerPlan
from twofold.model.system import System
from twofold.model.unified import UnifiedModel
from twofold.serve.app import make_app
from twofold.serve.gate import Rules
from twofold.serve.service import Loaded, Service

THREE = LayerPlan(tuple(Expert(name, 2) for name in ("embedding", "reranking", "shared")), router="soft")
TEXTS = ["the red fox runs over the lazy dog", "a dog", "what is it", "fox " * 60, "it is a lazy red fox : what"]
DOCUMENTS = ["a red fox", "lazy " * 70, "the dog runs", "what"]
Serving = Callable[..., Any]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> UnifiedModel:
    """Both tasks, three experts that do something, a soft router."""
    return stirred(tiny_unified(write_backbone(tmp_path_factory.mktemp("served") / "backbone"), THREE), size=0.2).eval()


@pytest.fixture(scope="session")
def system(model: UnifiedModel) -> System:
    return System.of(model)


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """The address of a real server around the application."""
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        own.listen(256)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [own]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{own.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


@contextmanager
def served(loaded: Loaded | None, rules: Rules | None = None, **options: Any) -> Iterator[tuple[Service, httpx2.Client]]:
    """A service, open if there is something to open, and a client of it."""
    service = Service("tiny", **options)
    if loaded is not None:
        service.open(loaded)
    with listening(make_app(service, rules)) as address, httpx2.Client(base_url=address, timeout=30) as client:
        yield service, client
    service.close(5)


@pytest.fixture(scope="session")
def live(system: System) -> Iterator[tuple[Service, httpx2.Client]]:
    """A server for all tests that leave it as it was."""
    with served(Loaded({"": system})) as pair:
        yield pair


@pytest.fixture
def service(live: tuple[Service, httpx2.Client]) -> Service:
    return live[0]


@pytest.fixture
def client(live: tuple[Service, httpx2.Client]) -> httpx2.Client:
    return live[1]


@pytest.fixture
def address(client: httpx2.Client) -> str:
    return str(client.base_url)


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.txt"
