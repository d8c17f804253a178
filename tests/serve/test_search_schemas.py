"""The forms of searches and answers."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from twofold.serve.search_schemas import AnswerRequest, SearchRequest


def test_defaults() -> None:
    asked = SearchRequest(query="a")
    assert (asked.top_k, asked.depth, asked.mode, asked.rerank, asked.explain) == (10, 20, "hybrid", True, False)
    assert AnswerRequest(question="a").read == 5


@pytest.mark.parametrize("where", [{"a": 1}, {"a": "x", "b": [True, 2.5, "y"]}, {}, None])
def test_conditions(where: Any) -> None:
    assert SearchRequest(query="a", where=where).where == where


@pytest.mark.parametrize(
    "given", [{"where": {"": 1}}, {"where": {"a": None}}, {"where": {str(i): i for i in range(21)}}, {"top_k": 101}, {"depth": True}]
)
def test_what_does_not_fit(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SearchRequest(query="a", **given)
