"""The model's thread: takes passes from the queue, runs them, and lives on whatever happens in one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from twofold.errors import TwofoldError
from twofold.serve.queue import Piece, Portion, Queue

log = logging.getLogger(__name__)


class Failed(Exception):
    """The model could not do a request's work; the message is for the log, not for the client."""


class Watch(Protocol):
    """Who is told of passes."""

    def __call__(self, portion: Portion, tokens: int, seconds: float) -> None: ...


@dataclass(frozen=True, eq=False)
class Call:
    """Work that shares no pass: a function, called on the model's thread."""

    function: Callable[[], Any]
    tokens: int

    @property
    def lane(self) -> Hashable:
        """Its own."""
        return id(self)


class Worker:
    """One thread. `run` answers pieces of one lane by one pass; calls are called."""

    def __init__(self, queue: Queue, run: Callable[[Sequence[Any]], Sequence[Any]], watch: Watch = lambda *_: None) -> None:
        self.queue, self.run, self.watch = queue, run, watch
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether there is somebody to do the work."""
        return self._thread.is_alive()

    def join(self, seconds: float) -> None:
        """Waits for the end, which comes when the queue is closed and empty."""
        self._thread.join(seconds)

    def _work(self) -> None:
        while (portion := self.queue.take()) is not None:
            tokens, begun = sum(ticket.pieces[place].tokens for ticket, place in portion), time.perf_counter()
            outputs = self._outputs(portion)
            seconds = time.perf_counter() - begun
            if not any(isinstance(output, BaseException) for output in outputs):
                self.queue.pace.saw(tokens, seconds)
            self.queue.settle(portion, outputs)
            self.watch(portion, tokens, seconds)

    def _outputs(self, portion: Portion) -> list[Any]:
        """Each piece's output or error. Where a pass fails, every request is tried alone: one that breaks it breaks no other."""
        pieces = [ticket.pieces[place] for ticket, place in portion]
        try:
            return self._pass(pieces)
        except BaseException as error:  # whatever it is, the thread lives on: a dead one would hang every client
            tickets = list(dict.fromkeys(ticket for ticket, _ in portion))
            log.error("a pass of %d requests failed: %s: %s", len(tickets), type(error).__name__, error)
            if len(tickets) == 1:
                return [Failed(f"{type(error).__name__}: {error}") for _ in pieces]
        found: dict[int, Any] = {}
        for ticket in tickets:
            mine = [i for i, (owner, _) in enumerate(portion) if owner is ticket]
            found.update(zip(mine, self._outputs([portion[i] for i in mine]), strict=True))
        return [found[i] for i in range(len(portion))]

    def _pass(self, pieces: Sequence[Piece]) -> list[Any]:
        if isinstance(pieces[0], Call):
            return [_called(pieces[0])]
        outputs = list(self.run(pieces))
        return [output if np.isfinite(output).all() else Failed("the model gave a number that is not one") for output in outputs]


def _called(call: Call) -> Any:
    """What the function gives, or the error that a caller can act on."""
    try:
        return call.function()
    except (ValueError, TwofoldError) as error:
        return error
