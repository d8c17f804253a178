"""The records that cross layers."""

from __future__ import annotations

from typing import Any

import pytest

from twofold.records import Document, Example


def test_a_documents_body_is_title_and_text() -> None:
    assert Document("1", "Title", "text").body == "Title text"
    assert Document("1", "", "text").body == "text"
    assert Document("1", "Title", "").body == "Title"


def example(**changes: Any) -> Example:
    fields: dict[str, Any] = {"query_id": "d/1", "query": "q", "document_ids": ("a", "b"), "documents": ("x", "y"), "grades": (1.0, 0.0)}
    return Example(**fields | changes)


def test_an_example_may_have_teacher_scores() -> None:
    assert example().teacher is None
    assert example(teacher=(0.5, 0.1)).teacher == (0.5, 0.1)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"grades": (1.0,)}, "'d/1': 2 documents, 1 grades, 2 ids"),
        ({"document_ids": ("a",)}, "2 documents, 2 grades, 1 ids"),
        ({"documents": (), "document_ids": (), "grades": ()}, "0 documents"),
        ({"teacher": (1.0,)}, "2 documents but 1 teacher scores"),
    ],
)
def test_an_example_whose_parts_do_not_match_is_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        example(**changes)
