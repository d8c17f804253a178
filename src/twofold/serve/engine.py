"""The loaded model as the routes see it: vectors, scores and searches to be awaited, all through the one queue.

Tokenising happens in threads of its own, before the queue, so that the event loop only waits; searches run in threads too, and
what they need of the model goes through the queue like everybody's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from twofold.model import mixed
from twofold.model.mixed import Segments
from twofold.model.system import System
from twofold.serve.pace import Pace
from twofold.serve.queue import Priority, Queue
from twofold.serve.worker import Call, Watch, Worker

T = TypeVar("T")
CHARACTERS_PER_TOKEN = 3
"""For the estimate that admission goes by, before anything is tokenised: on the safe side for English."""
BULK_TOKENS = 4096
"""A request of more than about so many tokens is bulk work, whatever it says of itself."""
WARM = ("what is a lambda?", "A lambda is a small anonymous function, written in one line where it is needed.")

Waiting = Callable[["Future[list[Any]]"], Awaitable[list[Any]]]
"""How a route waits for what was put: it may give up and cancel."""


async def patiently(future: Future[list[Any]]) -> list[Any]:
    """Waits, whatever happens to the client."""
    return await asyncio.wrap_future(future)


@dataclass(frozen=True)
class Asking:
    """How something is asked for: of which variant, whether others may go first, and how its client waits."""

    variant: str = ""
    bulk: bool = False
    waiting: Waiting = patiently

    def priority(self, tokens: int) -> Priority:
        """Long work is bulk in any case."""
        return "bulk" if self.bulk or tokens > BULK_TOKENS else "interactive"


@dataclass(frozen=True)
class Done:
    """Vectors (N, D) or scores (N,), and what they cost."""

    values: NDArray[np.float32]
    tokens: int
    truncated: int


class Engine:
    """Owns the queue, the model's thread and the threads around it. `systems`: the default one under "", variants by name."""

    def __init__(
        self, systems: dict[str, System], *, max_wait: float = 2.0, max_bulk_wait: float = 30.0, watch: Watch = lambda *_: None
    ) -> None:
        self.systems = systems
        for model in {id(model): model for system in systems.values() for model in system.models}.values():
            model.eval()
        self.queue = Queue(Pace(), max_wait, max_bulk_wait)
        self.worker = Worker(self.queue, mixed.run, watch)
        self._tokenisers = ThreadPoolExecutor(2, thread_name_prefix="tokens")
        self._searches = ThreadPoolExecutor(8, thread_name_prefix="search")

    def warm(self, seconds: float = 1.0) -> None:
        """A few passes of growing size, so that the first estimates are this machine's. The first is the slowest, and says nothing."""
        system, size = self.systems[""], 1
        while size <= 64:
            rows = mixed.texts(system, [" ".join(WARM)] * size).rows
            rows += [] if system.reads_lists else mixed.pairs(system, [WARM] * size).rows
            self.queue.put(rows, "bulk").result()
            if size == 1:
                self.queue.pace = Pace()
                self.queue.put(rows, "bulk").result()
            if self.queue.pace.seconds(4 * sum(row.tokens for row in rows)) > seconds:
                return
            size *= 2

    async def embed(
        self, texts: Sequence[str] | Sequence[list[int]], prompt: str | None, how: Asking | None = None, *, dims: int | None = None
    ) -> Done:
        """Unit vectors. Raises Overloaded, Closed, Failed, and ValueError for bad texts or ids."""
        how = how or Asking()
        system = self.systems[how.variant]
        longest = system.embedder.tokens.max_length
        sizes = sum(min(longest, _size(text)) for text in texts)
        made, rows = await self._answered(partial(mixed.texts, system, texts, prompt), sizes, how)
        values = np.stack(rows) if rows else np.zeros((0, system.embedder.width), np.float32)
        if dims is not None:
            values = values[:, :dims] / np.maximum(np.linalg.norm(values[:, :dims], axis=1, keepdims=True), 1e-12)
        system.embedder.truncated["texts"] += made.truncated
        return Done(values, made.tokens, made.truncated)

    async def score(self, pairs: Sequence[tuple[str, str]], how: Asking | None = None, *, cut: bool = True) -> Done:
        """Raw pair scores. Raises as `embed`, and ValueError for pairs that are too long where they may not be `cut`."""
        how = how or Asking()
        system = self.systems[how.variant]
        sizes = self._pair_sizes(system, pairs)
        if system.reads_lists:  # a list is one piece of work
            (values,) = await self._called(lambda: system.score(pairs), sizes, how)
            return Done(values, sizes, 0)
        made, rows = await self._answered(partial(_pairs, system, pairs, cut), sizes, how)
        system.reranker.truncated["pairs"] += made.truncated
        return Done(np.array(rows, dtype=np.float32).reshape(-1), made.tokens, made.truncated)

    async def search(self, tokens: int, search: Callable[[Blocking], T], variant: str = "", waiting: Waiting = patiently) -> T:
        """A function that searches, in a thread; it gets callables that block until the queue has done their work.

        `tokens`: about what it will cost, which is held back for it. Raises as `embed`, and what `search` raises.
        """
        priority: Priority = "bulk" if tokens > BULK_TOKENS else "interactive"
        place = ExitStack()  # kept to the end of the search: what it asks for after its scores is answered by a closing server, too
        counted = place.enter_context(self.queue.admitted(tokens, priority))
        blocking = Blocking(self.queue, self.systems[variant], priority, counted)

        def searched() -> list[T]:
            with place:
                return [search(blocking)]

        try:
            future: Future[list[Any]] = self._searches.submit(searched)
            future.add_done_callback(lambda done: place.close() if done.cancelled() else None)
        except BaseException:
            place.close()
            raise
        (found,) = await waiting(future)
        return found  # type: ignore[no-any-return]

    def close(self, seconds: float) -> bool:
        """Takes no more work, and waits until what was taken is done; what is not done in time, is not done. Whether all was."""
        self.queue.close()
        done = self.queue.drained(seconds)
        if not done:
            self.queue.abandon()
        self._tokenisers.shutdown(wait=False)
        self._searches.shutdown(wait=False)
        self.worker.join(1.0 if done else 0.0)
        return done

    async def _answered(self, make: Callable[[], Segments], tokens: int, how: Asking) -> tuple[Segments, list[Any]]:
        priority = how.priority(tokens)
        with self.queue.admitted(tokens, priority):
            made = await asyncio.get_running_loop().run_in_executor(self._tokenisers, make) if tokens else Segments([], 0)
            future = self.queue.put(made.rows, priority)
        return made, await how.waiting(future)

    async def _called(self, function: Callable[[], Any], tokens: int, how: Asking) -> list[Any]:
        priority = how.priority(tokens)
        with self.queue.admitted(tokens, priority):
            future = self.queue.put([Call(function, tokens)], priority)
        return await how.waiting(future)

    def _pair_sizes(self, system: System, pairs: Sequence[tuple[str, str]]) -> int:
        longest = system.reranker.tokens.pair_length
        return sum(min(longest, _size(query) + _size(document)) for query, document in pairs)


class Blocking:
    """One search's share of the model: `encode_query` and `score` wait for the queue; admission was before."""

    def __init__(self, queue: Queue, system: System, priority: Priority, counted: Callable[[], None]) -> None:
        self.queue, self.system, self.priority, self._counted = queue, system, priority, counted

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D)."""
        return np.stack(self.queue.put(mixed.texts(self.system, texts, "query").rows, self.priority).result())

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """(N,) raw scores."""
        if self.system.reads_lists:
            return np.asarray(self.call(lambda: self.system.score(pairs), sum(len(d) for _, d in pairs) // CHARACTERS_PER_TOKEN))
        future = self.queue.put(mixed.pairs(self.system, pairs).rows, self.priority)
        self._counted()  # the work itself is in the queue now
        return np.array(future.result(), dtype=np.float32).reshape(-1)

    def call(self, function: Callable[[], T], tokens: int) -> T:
        """Any other work with the model, on the model's thread."""
        (found,) = self.queue.put([Call(function, tokens)], self.priority).result()
        return found  # type: ignore[no-any-return]


def _pairs(system: System, pairs: Sequence[tuple[str, str]], cut: bool) -> Segments:
    made = mixed.pairs(system, pairs)
    if made.truncated and not cut:
        limit = system.reranker.tokens.pair_length
        raise ValueError(f"{made.truncated} of {len(pairs)} pairs are longer than the {limit} tokens that the model reads")
    return made


def _size(text: str | list[int]) -> int:
    return len(text) // (CHARACTERS_PER_TOKEN if isinstance(text, str) else 1) + 4
