"""The server's benchmarks run, at tiny sizes; nothing is asserted about time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench import hostile
from bench._bad_input import BAD
from bench._http import Answer, quantile
from bench._load import Seen, Work, closed, crowded, recovered
from tests.serve.conftest import TEXTS, served
from tests.tiny_trial import stirred, tiny_unified, write_backbone
from twofold.model.system import System
from twofold.serve.service import Loaded


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return stirred(tiny_unified(write_backbone(tmp_path_factory.mktemp("bench-serve") / "backbone")), size=0.2).eval()


def test_a_load_is_compared_with_the_model(model: Any) -> None:
    work = Work.made(model, TEXTS, ["what is it", "a dog"])
    with served(Loaded({"": System.of(model)}), max_wait=60.0) as (_, client):
        port = client.base_url.port
        seen = asyncio.run(closed(port, work, 4, 0.5, (("embed", 0.5), ("rerank", 0.5))))
        work.vectors = work.vectors + 1.0
        wrong = asyncio.run(closed(port, work, 2, 0.2, (("embed", 1.0),)))
        crowd, health = asyncio.run(crowded(port, work, 100.0, 0.3))
        assert asyncio.run(recovered(port, work, 10.0)) < 10
    assert seen.statuses.keys() == {200} and seen.wrong == 0 and {"embed", "rerank"} >= seen.times.keys()
    assert wrong.wrong == len(wrong.all) > 0
    assert set(crowd.statuses) <= {200, 429} and crowd.without_word == 0 and health
    assert seen.summary(0.5)["latency"]["all"]["p50"] > 0


def test_what_is_noted() -> None:
    seen = Seen()
    seen.note("embed", Answer(429, {}, b"", 0.1), lambda _: True)
    seen.note("embed", Answer(0, {}, b"", 0.1), lambda _: True)
    assert seen.statuses == {429: 1, 0: 1} and seen.without_word == 1 and quantile([3, 1, 2], 0.5) == 2 and quantile([], 0.5) == 0


def test_bad_input_and_roles(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=1.0))
    with served(Loaded({"": System.of(model)})) as (_, client):
        found = hostile.bad_input(client.base_url.port, process)
        assert found["tracebacks"] == 0 and found["named"] == 1 and found["requests"] == len(BAD)
    assert hostile.roles()["covered"] == 1


def test_numbers_are_what_the_model_gives(model: Any) -> None:
    work = Work.made(model, TEXTS, ["what is it"])
    assert np.array_equal(work.vectors, model.encode(TEXTS)) and len(work.lists[0]) == len(TEXTS)
