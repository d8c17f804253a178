"""The forms of searches and answers."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from twofold.search import answers, pipeline
from twofold.serve.search_schemas import AnswerRequest, Citation, OtherAnswer, SearchHit, SearchRequest


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


@pytest.mark.parametrize(("form", "value"), [(SearchHit, pipeline.Hit), (Citation, answers.Citation), (OtherAnswer, answers.Other)])
def test_what_goes_out_has_the_fields_of_what_was_found(form: type[BaseModel], value: Any) -> None:
    """The shapes on the wire are written down by themselves; a field that the search gains must not be lost on the way."""
    fields = value._fields if hasattr(value, "_fields") else [each.name for each in dataclasses.fields(value)]
    assert set(form.model_fields) == set(fields)
