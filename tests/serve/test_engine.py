"""The engine without HTTP: warm, fair, and patient with threads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest

from tests.serve.conftest import DOCUMENTS, TEXTS
from twofold.model.system import System
from twofold.serve.engine import Blocking, Engine
from twofold.serve.queue import Closed, Overloaded


@pytest.fixture
def engine(system: System) -> Iterator[Engine]:
    engine = Engine({"": system})
    yield engine
    assert engine.close(5)


def test_warming_learns_how_fast_this_machine_is(engine: Engine) -> None:
    before = engine.queue.pace.per_token
    engine.warm()
    assert engine.queue.pace.per_token != before and not any(engine.queue.load.values())


def test_vectors_and_scores_are_the_models(engine: Engine, system: System) -> None:
    async def both() -> None:
        vectors, scores = await asyncio.gather(engine.embed(TEXTS, None), engine.score([("what", text) for text in DOCUMENTS]))
        assert abs(vectors.values - system.embedder.encode(TEXTS)).max() < 1e-5 and vectors.truncated == 1
        assert np.allclose(scores.values, system.score([("what", text) for text in DOCUMENTS]), atol=1e-4) and scores.truncated == 1
        assert (await engine.embed([], None)).values.shape == (0, 32) and (await engine.score([])).values.shape == (0,)

    asyncio.run(both())


def test_a_search_holds_its_place_until_its_work_is_counted(engine: Engine) -> None:
    seen: list[float] = []

    def search(model: Blocking) -> str:
        seen.append(engine.queue.load["interactive"])
        model.encode_queries(["a fox"])
        model.score([("a", "fox")])
        seen.append(engine.queue.load["interactive"])
        return model.call(lambda: "done", 7)

    assert asyncio.run(engine.search(500, search)) == "done"
    assert seen == [500, 0] and not any(engine.queue.load.values())


def test_a_search_that_was_admitted_is_answered_though_the_engine_closes_meanwhile(engine: Engine) -> None:
    """Between its scores and what it asks for next, a search has nothing in the queue."""

    def search(model: Blocking) -> str:
        model.score([("a", "fox")])
        engine.queue.close()
        engine.worker.join(0.1)  # time to end, for a worker that thinks that nothing follows
        return model.call(lambda: "answer", 7)

    async def answered() -> str:
        return await asyncio.wait_for(engine.search(500, search), 5)

    assert asyncio.run(answered()) == "answer"
    assert engine.close(5) and not engine.worker.alive
    with pytest.raises(Closed):
        asyncio.run(engine.search(500, search))


def test_a_search_that_fails_gives_its_place_back(engine: Engine) -> None:
    def search(_: Blocking) -> None:
        raise ValueError("ask better")

    with pytest.raises(ValueError, match="ask better"):
        asyncio.run(engine.search(500, search))
    assert not any(engine.queue.load.values())


def test_too_much_is_refused_before_it_is_tokenised(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twofold.serve.engine.mixed.texts", lambda *_: pytest.fail("it was tokenised"))
    with engine.queue.admitted(10**9, "interactive"), pytest.raises(Overloaded):
        asyncio.run(engine.embed(["a fox"], None))


def test_bad_text_costs_nothing(engine: Engine) -> None:
    with pytest.raises(ValueError, match="lone surrogate"):
        asyncio.run(engine.embed(["\ud800"], None))
    with pytest.raises(ValueError, match="1 of 1 pairs are longer"):
        asyncio.run(engine.score([("a", "lazy " * 90)], cut=False))
    assert not any(engine.queue.load.values())


def test_a_closed_engine_takes_nothing(system: System) -> None:
    engine = Engine({"": system})
    assert engine.close(1) and not engine.worker.alive
    with pytest.raises(Closed):
        asyncio.run(engine.embed(["a"], None))
