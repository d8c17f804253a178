"""A small HTTP/1.1 client over asyncio, so that what is measured is the server and not the client, and a server in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.request import urlopen

import psutil

from bench._measure import ROOT


@dataclass(frozen=True)
class Answer:
    """What came back, and when. Status 0: the connection broke."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


class Connection:
    """One connection that is kept, and opened again when it broke."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, path: str, content: Any = None) -> Answer:
        """GET without content, else POST."""
        body = b"" if content is None else json.dumps(content).encode()
        kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: localhost\r\n{kind}\r\n".encode()
        begun = time.perf_counter()
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self.port)
            reader, writer = self._streams
            writer.write(head + body)
            status, headers, found = await _read(reader)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            await self.close()
            return Answer(0, {}, b"", time.perf_counter() - begun)
        if headers.get("connection") == "close":
            await self.close()
        return Answer(status, headers, found, time.perf_counter() - begun)

    async def close(self) -> None:
        """Hangs up."""
        if self._streams is not None:
            writer, self._streams = self._streams[1], None
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def _read(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    return int(lines[0].split(" ")[1]), headers, await reader.readexactly(int(headers.get("content-length", "0")))


@contextmanager
def serving(command: Sequence[str], cpu: int | None) -> Iterator[tuple[int, psutil.Process]]:
    """Runs a module with `--port` behind its arguments until it is ready: (port, process). `cpu`: the processor that it is kept on."""
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        port = int(own.getsockname()[1])
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", *command, "--port", str(port)], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        if cpu is not None:
            psutil.Process(process.pid).cpu_affinity([cpu])
        end = time.monotonic() + 300
        while not _ready(port):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit("the server did not become ready")
            time.sleep(0.2)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def quantile(values: Sequence[float], share: float) -> float:
    """The value that so large a share does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
