"""The whole server in a process of its own: it loads, answers, asks nobody outside, and ends well."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.serve.conftest import PAGES
from twofold.errors import ConfigError
from twofold.model.folder import save
from twofold.model.system import System
from twofold.model.unified import UnifiedModel
from twofold.serve.keys import Keys, read_keys
from twofold.serve.run import Listening, serve
from twofold.serve.service import Loaded, Service

ALONE = """
import sys
def nobody(event, given):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto") and given[-1][0] not in ("127.0.0.1", "localhost"):
        sys.stderr.write(f"OUTGOING {event} {given}\\n")
    if event == "socket.getaddrinfo" and given[0] not in ("127.0.0.1", None):
        sys.stderr.write(f"OUTGOING {event} {given}\\n")
sys.addaudithook(lambda event, given: nobody(event, given) if event.startswith("socket.") else None)
from twofold.cli import main
main()
"""


LONG = 300
"""Documents of a request that is still being done when the server is told to stop."""


def free_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return int(own.getsockname()[1])


@pytest.fixture(scope="module")
def place(model: UnifiedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model, and documents that it has indexed."""
    folder = tmp_path_factory.mktemp("run")
    save(model, folder / "model")
    (folder / "pages").mkdir()
    for name, (title, text) in PAGES.items():
        (folder / "pages" / f"{name}.md").write_text(f"# {title}\n\n{text}\n")
    return folder


@pytest.fixture
def running(place: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`twofold serve` until it is ready."""
    port = free_port()
    arguments = ["serve", str(place / "model"), "--port", str(port), "--threads", "1", "--max-wait", "60"]
    environment = {**os.environ, "TWOFOLD_API_KEY": "", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", ALONE, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + 240
        while time.monotonic() < end and process.poll() is None:
            try:
                if httpx2.get(f"{address}/ready").status_code == 200:
                    break
            except httpx2.TransportError:
                pass
            time.sleep(0.05)
        yield process, address
        process.kill()


def test_asked_to_stop_it_answers_what_it_took_and_leaves(running: tuple[subprocess.Popen[str], str]) -> None:
    process, address = running
    long = {"query": "what is it", "documents": ["a lazy dog runs over the red fox " * 4] * LONG}
    answers: list[Any] = []

    def ask() -> None:
        answers.append(httpx2.post(f"{address}/rerank", json=long, timeout=60))

    thread = threading.Thread(target=ask)
    thread.start()
    with httpx2.Client(base_url=address, timeout=30) as kept:
        while 'bulk"} 0.0' in kept.get("/metrics").text and not answers:
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        begun, refused = time.monotonic(), None
        while refused is None and time.monotonic() - begun < 5:
            try:
                answer = kept.post("/v1/embeddings", json={"input": "a"})
                refused = answer if answer.status_code == 503 else None
            except httpx2.TransportError:
                break
    out, err = process.communicate(timeout=60)
    thread.join(10)
    assert process.returncode == 0, err
    assert [len(answer.json()["results"]) for answer in answers] == [LONG]
    assert refused is None or refused.json()["error"]["code"] == "draining"
    assert "OUTGOING" not in err and "Traceback" not in err and address in err and not out


def test_a_server_that_cannot_load_ends_and_says_why(place: Path) -> None:
    from tests.cli.typed import run

    torn = place / "torn"
    torn.mkdir(exist_ok=True)
    with pytest.raises(Exception, match="torn"):
        run("serve", torn, "--port", free_port())


def test_an_index_of_this_model_is_served_with_it(place: Path) -> None:
    from tests.cli.typed import run
    from twofold.serve.opening import Choice, opener

    run("index", place / "pages", "--to", place / "index", "--model", place / "model", "--store", "exact")
    loaded = opener(Choice(str(place / "model"), place / "index"))()
    assert loaded.library is not None and loaded.library.store.documents().keys() == {f"{name}.md" for name in PAGES}


def test_a_public_address_needs_a_key_or_the_wish(keys_file: Path) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(ConfigError, match="there is no key"):
            Listening(host).rules()
        assert Listening(host, insecure=True).rules().hosts is None
        assert Listening(host, keys=read_keys(None, "k" * 24)).rules().keys
    assert Listening("0.0.0.0", insecure=True, allowed_hosts=("My.Name",)).rules().hosts == {"my.name"}
    rules = Listening("127.0.0.1", keys=Keys(), allowed_hosts=("laptop",)).rules()
    assert rules.hosts is not None and {"localhost", "laptop"} <= rules.hosts and "example.org" not in rules.hosts


def test_an_address_that_is_taken_is_said(system: System) -> None:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        own.listen()
        service = Service("any")
        with pytest.raises(ConfigError, match="is something else there"):
            serve(service, lambda: Loaded({"": system}), Listening(port=own.getsockname()[1]))


def test_the_command_makes_keys_that_the_server_knows(keys_file: Path) -> None:
    from tests.cli.typed import run

    made = run("key", "laptop", "--admin")
    keys_file.write_text(made.stdout)
    word = made.stderr.split()[-1]
    key = read_keys(keys_file).find(word)
    assert key is not None and (key.name, key.role) == ("laptop", "admin") and word not in made.stdout


def test_the_openapi_document_names_every_error(client: httpx2.Client) -> None:
    paths = json.loads(client.get("/openapi.json").text)["paths"]
    for path in ("/v1/embeddings", "/rerank", "/v1/search"):
        assert {"200", "400", "401", "404", "413", "415", "422", "429", "503"} <= paths[path]["post"]["responses"].keys()
