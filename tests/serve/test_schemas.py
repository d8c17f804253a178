"""The forms that requests may have."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from twofold.serve.schemas import EmbeddingsRequest, QueriesRequest, RerankRequest, ScoreRequest


@pytest.mark.parametrize(
    ("given", "texts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_four_forms_of_input(given: Any, texts: Any) -> None:
    assert EmbeddingsRequest(input=given).texts == texts


def test_input_types_are_the_models_prompts() -> None:
    words = ("query", "document", "search_query", "search_document")
    assert [EmbeddingsRequest(input="a", input_type=word).prompt for word in words] == ["query", "document"] * 2
    assert EmbeddingsRequest(input="a").prompt is None


def test_one_text_goes_with_each_of_many() -> None:
    assert ScoreRequest(text_1="a", text_2=["b", "c"]).pairs == [("a", "b"), ("a", "c")]
    assert QueriesRequest(queries=["a", "b"], documents="c").pairs == [("a", "c"), ("b", "c")]
    assert ScoreRequest(text_1=["a", "b"], text_2=["c", "d"]).pairs == [("a", "c"), ("b", "d")]


def test_numbers_of_texts_must_fit() -> None:
    with pytest.raises(ValueError, match="2 and 3 texts"):
        _ = ScoreRequest(text_1=["a", "b"], text_2=["c", "d", "e"]).pairs


def test_a_whole_number_may_be_written_with_a_point() -> None:
    assert EmbeddingsRequest.model_validate({"input": "a", "dimensions": 9.0}).dimensions == 9


@pytest.mark.parametrize(
    ("shape", "given"),
    [
        (ScoreRequest, {"text_1": "a", "documents": "b"}),
        (QueriesRequest, {"text_1": "a", "text_2": "b"}),
        (RerankRequest, {"query": "a"}),
        (RerankRequest, {"query": "a", "texts": ["b"]}),
        (RerankRequest, {"query": "a", "documents": []}),
        (RerankRequest, {"query": "a", "documents": ["b"], "top_n": "1"}),
        (EmbeddingsRequest, {"input": [True, False]}),
        (EmbeddingsRequest, {"input": [1.5]}),
    ],
)
def test_what_is_neither_is_refused(shape: Any, given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        shape(**given)


def test_documents_may_be_objects_and_may_be_empty() -> None:
    assert RerankRequest.model_validate({"query": "a", "documents": ["b", {"text": ""}]}).bodies == ["b", ""]
