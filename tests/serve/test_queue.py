"""The queue without a model: what shares a pass, who goes first, what is refused, and what is left after all of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable
from dataclasses import dataclass

import pytest

from twofold.serve.pace import Pace
from twofold.serve.queue import Closed, Overloaded, Portion, Priority, Queue


@dataclass(frozen=True)
class Work:
    tokens: int
    lane: Hashable = "one"


def steady(rate: float = 1000.0) -> Pace:
    """A machine that does so many tokens a second."""
    pace = Pace()
    pace.fixed, pace.per_token = 0.0, 1 / rate
    return pace


def sizes(portion: Portion | None) -> list[tuple[Priority, int]]:
    assert portion is not None
    return [(ticket.priority, ticket.pieces[place].tokens) for ticket, place in portion]


def done(queue: Queue) -> list[tuple[Priority, int]]:
    """Takes a pass and does it."""
    portion = queue.take()
    assert portion is not None
    queue.settle(portion, [ticket.pieces[place].tokens * 2 for ticket, place in portion])
    return sizes(portion)


def test_a_pass_holds_many_requests_up_to_its_budget() -> None:
    queue = Queue(steady())  # 0.1 s would be 100 tokens: the least budget, 512, holds
    futures = [queue.put([Work(200), Work(100)], "interactive") for _ in range(3)]
    assert sizes(queue.take()) == [("interactive", 200), ("interactive", 100), ("interactive", 200)]
    assert [future.done() for future in futures] == [False] * 3


def test_outputs_come_back_in_order_and_nothing_is_left() -> None:
    queue = Queue(steady())
    future = queue.put([Work(300), Work(400), Work(1)], "interactive")
    while not future.done():
        done(queue)
    assert future.result() == [600, 800, 2]
    assert queue.load == {"interactive": 0, "bulk": 0}
    assert queue.put([], "bulk").result() == []


def test_a_piece_larger_than_the_budget_goes_alone() -> None:
    queue = Queue(steady())
    queue.put([Work(5000), Work(10)], "interactive")
    assert sizes(queue.take()) == [("interactive", 5000)]


def test_interactive_work_overtakes_bulk_work_but_does_not_starve_it() -> None:
    queue = Queue(steady())
    queue.put([Work(100)] * 20, "bulk")
    queue.put([Work(100)] * 20, "interactive")
    first = sizes(queue.take())
    assert first.count(("interactive", 100)) == 3 and first.count(("bulk", 100)) == 2


def test_bulk_requests_take_turns() -> None:
    queue = Queue(steady())
    long = queue.put([Work(500)] * 10, "bulk")
    short = queue.put([Work(500)], "bulk")
    done(queue), done(queue)
    assert short.done() and not long.done()


def test_what_cannot_share_a_pass_does_not_and_still_gets_its_turn() -> None:
    queue = Queue(steady())
    queue.put([Work(100, "a")] * 10, "interactive")
    queue.put([Work(100, "b")], "interactive")
    bulk = queue.put([Work(100, "c")], "bulk")
    seen = [sizes(portion) for portion in iter(lambda: _settled(queue), None)]
    assert sum(len(portion) for portion in seen) == 12
    assert all(len({kind for kind, _ in portion}) == 1 for portion in seen) and bulk.done()


def _settled(queue: Queue) -> Portion | None:
    if not any(queue.load.values()):
        return None
    portion = queue.take()
    assert portion is not None
    queue.settle(portion, [None] * len(portion))
    return portion


def test_what_would_wait_too_long_is_told_when_to_come_back() -> None:
    queue = Queue(steady(), max_wait=2.0)
    with queue.admitted(3000, "interactive"):  # the queue is empty: it takes all
        with pytest.raises(Overloaded) as told, queue.admitted(500, "interactive"):
            pass
        assert told.value.retry_after == 3  # 3.5 s of work, stretched by a quarter, and 2 s may be waited for
        with queue.admitted(500, "bulk"):  # bulk work may wait longer
            pass
    with queue.admitted(500, "interactive"):
        pass
    assert queue.load == {"interactive": 0, "bulk": 0}


def test_waits_that_were_longer_than_thought_make_it_promise_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is half as fast as the queue thinks: after some such waits it takes half as much."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    queue = Queue(steady(), max_wait=2.0)

    def taken() -> int:
        count = 0
        with pytest.raises(Overloaded):
            while True:
                with queue.admitted(100, "interactive"):
                    queue.put([Work(100)], "interactive")
                count += 1
        return count

    before = taken()
    for _ in range(40):
        while any(queue.load.values()):
            clock[0] += 2 * sum(tokens for _, tokens in done(queue)) / 1000
        after = taken()
    assert before == 16 and 9 <= after <= 11


def test_waiting_bulk_work_makes_interactive_work_wait_a_little_longer() -> None:
    queue = Queue(steady())
    alone = queue.wait(900, "interactive")
    queue.put([Work(10000)], "bulk")
    assert queue.wait(900, "interactive") == pytest.approx(alone / 0.75)
    assert queue.wait(900, "bulk") == pytest.approx(10.9)


def test_a_cancelled_request_costs_nothing_more() -> None:
    queue = Queue(steady())
    future = queue.put([Work(400)] * 5, "interactive")
    portion = queue.take()
    assert portion is not None and future.cancel()
    assert queue.load["interactive"] == 400  # the one that is under way
    queue.settle(portion, [1])
    other = queue.put([Work(7)], "interactive")
    assert done(queue) == [("interactive", 7)] and other.result() == [14]
    assert queue.load == {"interactive": 0, "bulk": 0}


def test_an_error_ends_the_request_and_no_other() -> None:
    queue = Queue(steady())
    bad, good = queue.put([Work(300), Work(300)], "interactive"), queue.put([Work(100)], "interactive")
    portion = queue.take()
    assert portion is not None
    queue.settle(portion, [ValueError("no") if ticket.future is bad else 5 for ticket, _ in portion])
    done(queue) if not good.done() else None
    with pytest.raises(ValueError, match="no"):
        bad.result()
    assert good.result(0) and queue.load == {"interactive": 0, "bulk": 0}


def test_a_closed_queue_finishes_what_it_has() -> None:
    queue = Queue(steady())
    future = queue.put([Work(10)], "interactive")
    queue.close()
    with pytest.raises(Closed), queue.admitted(1, "interactive"):
        pass
    assert not queue.drained(0.01)
    done(queue)
    assert future.done() and queue.drained(0) and queue.take() is None


def test_a_place_outlives_its_estimate_and_a_closed_queue_takes_what_comes_from_it() -> None:
    queue = Queue(steady())
    with queue.admitted(5000, "interactive") as counted:
        counted(), counted()
        assert queue.load == {"interactive": 0, "bulk": 0}
        with queue.admitted(5000, "interactive"):  # nothing is ahead: the place of a search that goes on counts as no work
            pass
        queue.close()
        assert not queue.drained(0.01)
        future = queue.put([Work(10)], "interactive")
        assert done(queue) == [("interactive", 10)] and future.result(0) == [20]
    assert queue.load == {"interactive": 0, "bulk": 0} and queue.drained(0) and queue.take() is None


def test_the_worker_waits_for_who_was_admitted_before_the_end() -> None:
    queue = Queue(steady())
    taken: list[Portion | None] = []
    worker = threading.Thread(target=lambda: taken.append(queue.take()))
    with queue.admitted(10, "interactive") as counted:
        counted()
        queue.close()
        worker.start()
        worker.join(0.05)
        assert worker.is_alive()
    worker.join(5)
    assert taken == [None]


def test_nothing_can_be_put_that_nobody_would_take() -> None:
    queue = Queue(steady())
    queue.close()
    assert queue.take() is None
    with pytest.raises(Closed):
        queue.put([Work(10)], "interactive")
    assert queue.load == {"interactive": 0, "bulk": 0} and queue.put([], "bulk").result(0) == []


def test_who_was_admitted_can_put_nothing_once_all_is_abandoned() -> None:
    queue = Queue(steady())
    with queue.admitted(10, "interactive"):
        queue.close()
        queue.abandon()
        with pytest.raises(Closed):
            queue.put([Work(10)], "interactive")
    assert queue.drained(0) and queue.take() is None


def test_what_is_abandoned_is_told() -> None:
    queue = Queue(steady())
    under_way, waiting = queue.put([Work(500)], "interactive"), queue.put([Work(500)] * 3, "bulk")
    portion = queue.take()
    queue.close()
    queue.abandon()
    with pytest.raises(Closed):
        waiting.result(0)
    assert portion is not None
    queue.settle(portion, ["done"] * len(portion))
    assert under_way.result(0) == ["done"] and queue.load == {"interactive": 0, "bulk": 0} and queue.take() is None


def test_many_threads_lose_nothing() -> None:
    queue = Queue(steady(1e6))
    futures = []

    def ask(n: int) -> None:
        for i in range(50):
            with queue.admitted(10, "bulk"):
                futures.append(queue.put([Work(1 + (n * i) % 9)] * (i % 4), "bulk" if i % 3 else "interactive"))

    def work() -> None:
        while (portion := queue.take()) is not None:
            queue.settle(portion, [place for _, place in portion])

    worker = threading.Thread(target=work)
    worker.start()
    askers = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in askers:
        thread.start()
    for thread in askers:
        thread.join()
    queue.close()
    worker.join(10)
    assert not worker.is_alive() and len(futures) == 200
    assert all(future.result(0) == list(range(len(future.result()))) for future in futures)
    assert queue.load == {"interactive": 0, "bulk": 0}
