"""The one queue: work of two priorities, cut into passes by a budget of tokens, and refused when it would wait too long.

Interactive work goes first come, first served. Bulk work shares turns: a request of a thousand documents delays another by a share of a
pass, not by a thousand. While both wait, a pass is three parts interactive and one part bulk, so neither starves the other.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, get_args

from twofold.serve.pace import Lateness, Pace

Priority: TypeAlias = Literal["interactive", "bulk"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
SHARE = 0.75
"""Of a pass, what interactive work gets while bulk work waits."""
PASS_SECONDS = 0.1
"""A pass is about this long: what a request that comes just after its start has to wait at least."""
PASS_TOKENS = (512, 16384)
"""A pass's budget is kept within these: below, a processor is not used well; above, memory is."""


WORTH = 0.5
"""Waits that were thought to be at least this share of the limit say how good the thoughts are."""


class Overloaded(Exception):
    """The work would wait longer than the server promises."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full; try again in {retry_after} s")
        self.retry_after = retry_after


class Closed(Exception):
    """The server takes no more work: it is loading or draining."""


class Piece(Protocol):
    """What a pass is made of."""

    @property
    def tokens(self) -> int:
        """What it costs."""

    @property
    def lane(self) -> Hashable:
        """Only pieces of one lane share a pass."""


@dataclass(eq=False)
class Ticket:
    """One request's pieces: those that wait, and what came of the others."""

    priority: Priority
    pieces: Sequence[Piece]
    future: Future[list[Any]] = field(default_factory=Future)
    results: dict[int, Any] = field(default_factory=dict)
    begun: int = 0
    """How many pieces have been taken."""
    since: float = field(default_factory=lambda: time.monotonic())
    estimate: float = 0.0
    """Seconds from `since` until it would be done, as the queue thought."""

    @property
    def waiting(self) -> bool:
        """Whether there is something to take."""
        return self.begun < len(self.pieces) and not self.future.done()


Portion: TypeAlias = list[tuple[Ticket, int]]
"""A pass: which piece of which ticket."""


class Queue:
    """Thread-safe. Requests `admit` and `put`; one worker `take`s passes and `settle`s them."""

    def __init__(self, pace: Pace, max_wait: float = 2.0, max_bulk_wait: float = 30.0) -> None:
        self.pace, self.late, self.limits = pace, Lateness(), {"interactive": max_wait, "bulk": max_bulk_wait}
        self.load: dict[Priority, float] = {"interactive": 0, "bulk": 0}
        """Tokens that were admitted and not settled yet, by priority."""
        self.open = True
        self._places = 0
        """How many were admitted and may still put something."""
        self._abandoned = False
        self._tickets: dict[Priority, deque[Ticket]] = {"interactive": deque(), "bulk": deque()}
        self._since_bulk = 0
        self._ready = threading.Condition()

    @property
    def budget(self) -> int:
        """Tokens of the next pass."""
        least, most = PASS_TOKENS
        return min(most, max(least, self.pace.tokens(PASS_SECONDS)))

    def wait(self, tokens: float, priority: Priority) -> float:
        """Seconds from now until work of so many tokens would be done."""
        ahead = self.load[priority] + tokens
        if priority == "bulk":
            ahead += self.load["interactive"]
        elif self.load["bulk"]:
            ahead += min(self.load["bulk"], ahead * (1 / SHARE - 1))
        return self.pace.seconds(ahead, math.ceil(ahead / self.budget))

    @contextmanager
    def admitted(self, tokens: int, priority: Priority) -> Iterator[Callable[[], None]]:
        """Holds a place for work of about so many tokens, from before it is made until all of it is put. An empty queue takes all.

        Gives a function that takes the estimate back, for whoever has put most of the work and may put more: the place itself stays, and
        until its end a closed queue takes what comes from it. Raises Overloaded and Closed.
        """
        held = tokens

        def counted() -> None:
            nonlocal held
            with self._ready:
                self.load[priority], held = self.load[priority] - held, 0
                self._ready.notify_all()

        with self._ready:
            if not self.open:
                raise Closed
            wait = self.wait(tokens, priority) * self.late.factor
            if self.load[priority] and wait > self.limits[priority]:
                raise Overloaded(max(1, math.ceil(wait - self.limits[priority])))
            self.load[priority] += tokens
            self._places += 1
        try:
            yield counted
        finally:
            with self._ready:
                self._places -= 1
                counted()

    def put(self, pieces: Sequence[Piece], priority: Priority) -> Future[list[Any]]:
        """The pieces' outputs, in order, once they are there. What is not cancelled before its turn is done.

        Raises Closed where nobody would take them: the queue is shut and empty, or was abandoned.
        """
        ticket = Ticket(priority, pieces)
        if not pieces:
            ticket.future.set_result([])
            return ticket.future
        with self._ready:
            if self._abandoned or self._over:
                raise Closed
            self.load[priority] += sum(piece.tokens for piece in pieces)
            ticket.estimate = self.wait(0, priority)
            self._tickets[priority].append(ticket)
            self._ready.notify_all()
        ticket.future.add_done_callback(lambda future: self._forget(ticket) if future.cancelled() else None)
        return ticket.future

    def take(self) -> Portion | None:
        """The next pass, waited for; None when the queue is shut and empty."""
        with self._ready:
            while True:
                for waiting in self._tickets.values():
                    while waiting and not waiting[0].waiting:
                        waiting.popleft()
                if any(self._tickets.values()):
                    return self._portion()
                if self._over:
                    return None
                self._ready.wait()

    def settle(self, portion: Portion, outputs: Sequence[Any]) -> None:
        """What came of a pass: an output, or the exception, of each piece."""
        for (ticket, place), output in zip(portion, outputs, strict=True):
            with self._ready:
                self.load[ticket.priority] -= ticket.pieces[place].tokens
                self._ready.notify_all()
            if ticket.future.done():
                continue
            if isinstance(output, BaseException):
                self._forget(ticket)
                _finish(ticket.future, error=output)
            else:
                ticket.results[place] = output
                if len(ticket.results) == len(ticket.pieces):
                    if ticket.priority == "interactive" and ticket.estimate > WORTH * self.limits["interactive"]:
                        self.late.saw(ticket.estimate, time.monotonic() - ticket.since)
                    _finish(ticket.future, [ticket.results[i] for i in range(len(ticket.pieces))])

    def close(self) -> None:
        """No more work is admitted; what was admitted is done."""
        with self._ready:
            self.open = False
            self._ready.notify_all()

    def drained(self, seconds: float) -> bool:
        """Waits until nothing is admitted and unsettled any more. Whether it came to that in time."""
        end = time.monotonic() + seconds
        with self._ready:
            while self._busy and time.monotonic() < end:
                self._ready.wait(max(0.0, end - time.monotonic()))
            return not self._busy

    def abandon(self) -> None:
        """What waits, or is put from now on, is not done any more: its clients are told that the server closes."""
        with self._ready:
            self._abandoned = True
            tickets = [ticket for waiting in self._tickets.values() for ticket in waiting if ticket.waiting]
        for ticket in tickets:
            self._forget(ticket)
            _finish(ticket.future, error=Closed())

    @property
    def _busy(self) -> bool:
        """Whether there is work, or somebody who may put some."""
        return self._places > 0 or any(self.load.values())

    @property
    def _over(self) -> bool:
        """Whether nothing comes any more."""
        return not self.open and not self._busy

    def _forget(self, ticket: Ticket) -> None:
        """What is left of a ticket is not done."""
        with self._ready:
            left = ticket.pieces[ticket.begun :]
            ticket.begun = len(ticket.pieces)
            self.load[ticket.priority] -= sum(piece.tokens for piece in left)
            self._ready.notify_all()

    def _portion(self) -> Portion:
        both = all(self._tickets.values())
        first: Priority = "bulk" if not self._tickets["interactive"] or (both and self._since_bulk >= 3) else "interactive"
        other: Priority = "interactive" if first == "bulk" else "bulk"
        lane = _next(self._tickets[first][0]).lane
        portion: Portion = []
        left = float(self.budget)
        share = {"interactive": SHARE, "bulk": 1 - SHARE}[first] if both else 1.0
        left -= self._fill(portion, first, left * share, lane, at_least=1)
        left -= self._fill(portion, other, left, lane)
        self._fill(portion, first, left, lane)
        self._since_bulk = 0 if any(ticket.priority == "bulk" for ticket, _ in portion) else self._since_bulk + both
        return portion

    def _fill(self, portion: Portion, priority: Priority, budget: float, lane: Hashable, at_least: int = 0) -> float:
        """Takes pieces of a lane up to a budget of tokens, and at least so many; returns the tokens taken."""
        waiting, taken, count = self._tickets[priority], 0.0, 0
        skipped: list[Ticket] = []
        while waiting:
            ticket = waiting.popleft()
            while ticket.waiting and _next(ticket).lane == lane and (taken + _next(ticket).tokens <= budget or count < at_least):
                taken, count = taken + _next(ticket).tokens, count + 1
                portion.append((ticket, ticket.begun))
                ticket.begun += 1
            if ticket.waiting:
                skipped.append(ticket)
                if _next(ticket).lane == lane:  # it fits no more: nobody passes it
                    break
        if priority == "bulk" and count:  # the one that was served goes behind the others
            waiting.extend(skipped)
        else:
            waiting.extendleft(reversed(skipped))
        return taken


def _next(ticket: Ticket) -> Piece:
    return ticket.pieces[ticket.begun]


def _finish(future: Future[list[Any]], result: list[Any] | None = None, error: BaseException | None = None) -> None:
    """Unless it was cancelled in this very moment."""
    if future.set_running_or_notify_cancel():
        future.set_exception(error) if error is not None else future.set_result(result or [])
