"""What a search is expected to cost, and what a library without answers does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from twofold.model.system import System
from twofold.search.pipeline import Pipeline
from twofold.serve.library import Library, Question


def test_the_estimate_grows_with_what_is_reranked_and_ends_with_the_index(library: Library) -> None:
    small, large, plain = (library.tokens(Question("a", 1, depth, rerank=rerank)) for depth, rerank in ((2, True), (4, True), (4, False)))
    assert plain < small < large == library.tokens(Question("a", 1, 1000))


def test_only_a_model_that_has_learnt_to_answer_answers(system: System, library: Library) -> None:
    nobody: Any = None
    assert library.answerer is not None
    silent = Library(library.store, system)
    with pytest.raises(ValueError, match="not learnt to answer"):
        silent.answer(nobody, "a", [], 1)


class Watched:
    """The queue's side of an answer: what it was asked for."""

    def __init__(self) -> None:
        self.called, self.pairs = 0, list[tuple[str, str]]()

    def call(self, function: Callable[[], Any], tokens: int) -> Any:
        self.called += 1
        return function()

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        self.pairs += pairs
        return np.zeros(len(pairs), dtype=np.float32)


def test_pair_scores_that_a_search_left_out_come_from_the_queue(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model runs on the worker's thread alone: nothing of an answer may call it directly."""
    hits = Pipeline(library.store, library.reader.callables).search("a red fox", 3, rerank=False).hits
    assert library.answerer is not None and hits and all(hit.rerank_score is None for hit in hits)
    direct: Any = lambda pairs: pytest.fail(f"{len(pairs)} pairs were scored outside of the queue")  # noqa: E731
    assert library.answerer.score is not None
    monkeypatch.setattr(library, "answerer", replace(library.answerer, rerank_share=1.0, score=direct))
    model: Any = Watched()
    assert library.answer(model, "a red fox", hits, 2).read == 2
    assert model.called == 1 and model.pairs == [("a red fox", hit.body) for hit in hits[:2]]
