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
from twofold.search.stores import Passage
from twofold.search.stores.exact import ExactStore
from twofold.serve.app import make_app
from twofold.serve.gate import Rules
from twofold.serve.library import Library
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


PAGES = {
    "foxes": ("Foxes", "The red fox runs over the lazy dog. It is a fox 🦊 and not a dog."),
    "dogs": ("Dogs", "A dog is lazy. What is it that a dog runs over?"),
    "queries": ("Queries", "What is a query? It is what a document is red for."),
    "documents": ("Documents", "A document is over. The red query runs."),
}


@pytest.fixture(scope="session")
def reading(tmp_path_factory: pytest.TempPathFactory) -> System:
    """A model that answers whatever it is asked: of its words none has been learnt."""
    plain = tiny_unified(write_backbone(tmp_path_factory.mktemp("reading") / "backbone"), THREE, answer={"threshold": -1e9})
    return System.of(stirred(plain, size=0.2).eval())


@pytest.fixture(scope="session")
def library(reading: System) -> Library:
    """Four pages, a passage each, in memory."""
    store = ExactStore(None, reading.embedder.width)
    rows = [Passage(f"{name}#0", name, *page, f"{name}.md:1", {"kind": name[0]}) for name, page in PAGES.items()]
    store.upsert(rows, reading.encode_documents([row.body for row in rows]))
    return Library(store, reading)


@pytest.fixture(scope="session")
def searched(reading: System, library: Library) -> Iterator[tuple[Service, httpx2.Client]]:
    """A server with an index."""
    with served(Loaded({"": reading}, library)) as pair:
        yield pair


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
def served(
    loaded: Loaded | None, rules: Rules | None = None, name: str = "tiny", **options: Any
) -> Iterator[tuple[Service, httpx2.Client]]:
    """A service, open if there is something to open, and a client of it."""
    service = Service(name, **options)
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
