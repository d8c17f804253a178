"""What clients ask of a server, what they should get, and what they saw: closed loops, crowds, and one client beside another."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench._http import Answer, Connection, quantile

MIX = (("embed", 0.70), ("rerank", 0.25), ("search", 0.05))
CLIENTS, CROWD, FACTOR = 32, 200, 5
WRONG = {"vector": 1e-4, "score": 1e-3}
"""Largest differences from the model without a server: of a feature, and of a score relative to its size."""


@dataclass
class Work:
    """Requests and the answers that they should get."""

    texts: list[str]
    queries: list[str]
    vectors: Any
    lists: list[list[str]]
    scores: list[Any]

    @classmethod
    def made(cls, model: Any, texts: list[str], queries: list[str]) -> Work:
        lists = [random.Random(i).sample(texts, min(20, len(texts))) for i in range(len(queries))]
        scores = [model.score([(query, text) for text in own]) for query, own in zip(queries, lists, strict=True)]
        return cls(texts, queries, model.encode(texts), lists, scores)

    def request(self, kind: str, draw: random.Random) -> tuple[str, dict[str, Any], Callable[[Answer], bool]]:
        """A path, a body, and whether an answer is right."""
        i = draw.randrange(len(self.texts if kind == "embed" else self.queries))
        if kind == "embed":
            return "/v1/embeddings", {"input": self.texts[i]}, lambda answer: self._vector(answer, i)
        if kind == "rerank":
            body = {"query": self.queries[i], "documents": self.lists[i], "raw_scores": True}
            return "/rerank", body, lambda answer: self._ranking(answer, i)
        return "/v1/search", {"query": self.queries[i]}, lambda answer: len(answer.json["hits"]) > 0

    def _vector(self, answer: Answer, i: int) -> bool:
        return bool(abs(np.array(answer.json["data"][0]["embedding"]) - self.vectors[i]).max() <= WRONG["vector"])

    def _ranking(self, answer: Answer, i: int) -> bool:
        got = {row["index"]: row["relevance_score"] for row in answer.json["results"]}
        wanted = self.scores[i]
        return len(got) == len(wanted) and all(abs(got[j] - value) <= WRONG["score"] * max(1, abs(value)) for j, value in enumerate(wanted))


@dataclass
class Seen:
    """What a phase saw."""

    times: dict[str, list[float]] = field(default_factory=dict)
    statuses: dict[int, int] = field(default_factory=dict)
    wrong: int = 0
    refused: list[float] = field(default_factory=list)
    without_word: int = 0
    """Refusals that do not say when to come back."""

    def note(self, kind: str, answer: Answer, right: Callable[[Answer], bool]) -> None:
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        if answer.status == 200:
            self.times.setdefault(kind, []).append(answer.seconds)
            self.wrong += not right(answer)
        elif answer.status in (429, 503):
            self.refused.append(answer.seconds)
            self.without_word += "retry-after" not in answer.headers

    @property
    def all(self) -> list[float]:
        return [seconds for times in self.times.values() for seconds in times]

    def summary(self, seconds: float) -> dict[str, Any]:
        kinds = {**self.times, "all": self.all}
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
        return {
            "seconds": round(seconds, 1),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "requests_per_second": round(len(self.all) / seconds, 2),
            "wrong": self.wrong,
            "latency": {kind: {name: round(quantile(times, share), 4) for name, share in shares.items()} for kind, times in kinds.items()},
        }


async def closed(port: int, work: Work, clients: int, seconds: float, mix: Sequence[tuple[str, float]]) -> Seen:
    """Clients that ask again as soon as they are answered."""
    seen, end = Seen(), time.perf_counter() + seconds

    async def client(n: int) -> None:
        draw, connection = random.Random(n), Connection(port)
        while time.perf_counter() < end:
            (kind,) = draw.choices([kind for kind, _ in mix], [share for _, share in mix])
            path, body, right = work.request(kind, draw)
            seen.note(kind, await connection.ask(path, body), right)
        await connection.close()

    await asyncio.gather(*(client(n) for n in range(clients)))
    return seen


async def crowded(port: int, work: Work, rate: float, seconds: float) -> tuple[Seen, list[float]]:
    """Requests that come whether or not the earlier ones are answered, and how long /health takes meanwhile."""
    seen, health = Seen(), []
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(CROWD):
        free.put_nowait(Connection(port))
    draw, tasks, begun, sent = random.Random(1), set[asyncio.Task[None]](), time.perf_counter(), 0

    async def one(connection: Connection) -> None:
        path, body, right = work.request("embed", draw)
        seen.note("embed", await connection.ask(path, body), right)
        free.put_nowait(connection)

    async def watched() -> None:
        own = Connection(port)
        while time.perf_counter() - begun < seconds:
            health.append((await own.ask("/health")).seconds)
            await asyncio.sleep(0.25)
        await own.close()

    watcher = asyncio.create_task(watched())
    while time.perf_counter() - begun < seconds:
        while sent < (time.perf_counter() - begun) * rate and not free.empty():
            task = asyncio.create_task(one(free.get_nowait()))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            sent += 1
        await asyncio.sleep(0.002)
    await asyncio.gather(watcher, *tasks)
    while not free.empty():
        await free.get_nowait().close()
    return seen, health


async def recovered(port: int, work: Work, usual: float) -> float:
    """Seconds until single requests are as quick as they usually are (twice their median)."""
    begun, connection, draw = time.perf_counter(), Connection(port), random.Random(2)
    while time.perf_counter() - begun < 30:
        path, body, _ = work.request("embed", draw)
        answer = await connection.ask(path, body)
        if answer.status == 200 and answer.seconds <= 2 * usual:
            break
    took = time.perf_counter() - begun
    await connection.close()
    return took


async def unfair(port: int, work: Work, seconds: float) -> tuple[Seen, Seen]:
    """Single texts alone, and beside a client that reranks a thousand documents without a pause."""
    alone = await closed(port, work, 1, seconds / 3, (("embed", 1.0),))
    end, connection = time.perf_counter() + seconds, Connection(port)
    documents = (work.texts * (1000 // len(work.texts) + 1))[:1000]

    async def long() -> None:
        while time.perf_counter() < end:
            await connection.ask("/rerank", {"query": work.queries[0], "documents": documents})

    task = asyncio.create_task(long())
    beside = await closed(port, work, 1, seconds, (("embed", 1.0),))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await connection.close()
    return alone, beside
