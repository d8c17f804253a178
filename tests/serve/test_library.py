"""What a search is expected to cost, and what a library without answers does."""

from __future__ import annotations

from typing import Any

import pytest

from twofold.model.system import System
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
