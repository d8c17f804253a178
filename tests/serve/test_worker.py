"""The model's thread lives on, whatever happens in a pass."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.serve.test_queue import Work
from twofold.serve.pace import Pace
from twofold.serve.queue import Queue
from twofold.serve.worker import Call, Failed, Worker


class Model:
    """Doubles tokens; fails at the calls that it was told to fail at, and for a poisoned number always."""

    def __init__(self) -> None:
        self.calls, self.fail_at = 0, set[int]()
        self.held = threading.Event()
        self.held.set()

    def __call__(self, pieces: Sequence[Work]) -> list[float]:
        self.held.wait(10)
        self.calls += 1
        if self.calls in self.fail_at or any(piece.tokens == 13 for piece in pieces):
            raise SystemError("a broken pass")
        return [float("nan") if piece.tokens == 14 else 2.0 * piece.tokens for piece in pieces]


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def queue(model: Model) -> Iterator[Queue]:
    queue = Queue(Pace())
    worker = Worker(queue, model)
    yield queue
    queue.close()
    worker.join(5)
    assert not worker.alive


def test_pieces_are_answered_and_passes_are_timed(queue: Queue) -> None:
    before = queue.pace.per_token
    assert queue.put([Work(3), Work(5)], "interactive").result(5) == [6.0, 10.0]
    assert queue.pace.per_token != before


def test_one_poisonous_request_fails_alone(queue: Queue, model: Model, caplog: pytest.LogCaptureFixture) -> None:
    model.held.clear()
    first = queue.put([Work(1)], "interactive")
    others = [queue.put([Work(tokens), Work(2)], "interactive") for tokens in (4, 13, 6)]  # together in the pass after it
    with caplog.at_level(logging.CRITICAL):
        model.held.set()
        assert first.result(5) == [2.0]
        assert others[0].result(5) == [8.0, 4.0] and others[2].result(5) == [12.0, 4.0]
        with pytest.raises(Failed, match="a broken pass"):
            others[1].result(5)


@pytest.mark.parametrize("k", range(1, 51))
def test_whichever_pass_breaks_everybody_is_answered(k: int, queue: Queue, model: Model, caplog: pytest.LogCaptureFixture) -> None:
    model.fail_at = {k}
    with caplog.at_level(logging.CRITICAL):
        futures = [queue.put([Work(100)], "interactive") for _ in range(60)]
        failed = sum(future.exception(5) is not None for future in futures)
    model.fail_at = set()
    assert failed <= 1  # a pass of several is tried again, one by one
    assert queue.put([Work(1)], "interactive").result(5) == [2.0] and queue.load["interactive"] == 0


def test_what_is_not_a_number_is_not_handed_out(queue: Queue) -> None:
    with pytest.raises(Failed, match="not one"):
        queue.put([Work(14)], "interactive").result(5)


def test_calls_run_on_the_models_thread_and_their_errors_are_the_callers(queue: Queue) -> None:
    named = Call(lambda: threading.current_thread().name, 5)
    assert queue.put([named], "bulk").result(5) == ["model"]

    def wrong() -> Any:
        raise ValueError("ask better")

    with pytest.raises(ValueError, match="ask better"):
        queue.put([Call(wrong, 5)], "interactive").result(5)
