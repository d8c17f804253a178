"""An answer and what it rests on: chosen over all passages, cited to the letter, or the word that nothing supports one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from twofold.model.unified import UnifiedModel
from twofold.search.answers import Answer, Extractive, answer, cite, sentence_around
from twofold.search.pipeline import Hit
from twofold.tasks.answer import Span, build

TEXTS = (
    "It was long ago. The tower, 🙂 they say, was built in Zürich by Ada. Nobody knows why.",
    "Bob built a bridge. Later Ada built more.",
    "Nothing to see here.",
)


def hit(rank: int, text: str, pair: float | None = 0.0) -> Hit:
    return Hit(rank, 1 / rank, f"d{rank}#0", f"d{rank}", "Title", text, f"d{rank}.md:1", {}, rank, 1 / rank, rerank_score=pair)


HITS = [hit(i, text) for i, text in enumerate(TEXTS, start=1)]


def finds(words: dict[str, float]) -> Any:
    """Reads passages as the model would: each word that is there, with its score."""

    def spans(items: Sequence[tuple[str, str, str]]) -> list[list[Span]]:
        assert all(title == "Title" for _, title, _ in items)
        rows = [[Span(text.find(w), text.find(w) + len(w), s) for w, s in words.items() if w in text] for _, _, text in items]
        return [sorted(row, key=lambda span: -span.score) for row in rows]

    return spans


def test_the_best_span_of_all_passages_answers_and_is_cited_to_the_letter() -> None:
    found = answer("who?", HITS, Extractive(finds({"Ada": 3.0, "Bob": 1.0}), 0.0, 0.0))
    assert found.supported
    assert (found.text, found.score, found.read, found.reader) == ("Ada", 3.0, 3, "extractive")
    assert [(one.number, one.document, one.quote) for one in found.citations] == [(1, "d1", "Ada"), (2, "d2", "Ada")]
    for one in found.citations:
        text = TEXTS[int(one.document[1:]) - 1]
        assert text[one.start : one.end] == one.quote
        assert text[slice(*one.sentence)] == one.context
        assert one.source == f"{one.document}.md:1"
    assert found.citations[0].context == "The tower, 🙂 they say, was built in Zürich by Ada."
    assert found.citations[1].context == "Later Ada built more."
    assert found.others == (("Bob", 1.0, "d2#0"),)
    assert found.seconds > 0


def test_below_the_threshold_nothing_is_answered_and_the_best_is_told() -> None:
    found = answer("who?", HITS, Extractive(finds({"Ada": 3.0}), 3.5, 0.0))
    assert not found.supported
    assert (found.text, found.citations, found.score, found.threshold) == ("", (), 3.0, 3.5)
    assert found.others[0].text == "Ada"


def test_the_pair_score_counts_by_its_share() -> None:
    hits = [hit(1, TEXTS[1], 1.0), hit(2, "Eve did.", 9.0), hit(3, "Zoe did.", None)]
    read = finds({"Bob": 3.0, "Eve": 1.0, "Zoe": 2.0})
    assert answer("who?", hits, Extractive(read, 0.0, 0.0)).text == "Bob"
    found = answer("who?", hits, Extractive(read, 0.0, 0.5))
    assert (found.text, found.score) == ("Eve", 5.5)
    assert {other.text: other.score for other in found.others} == {"Bob": 3.5, "Zoe": 2.0}


def test_a_pair_score_that_the_search_left_out_is_asked_for() -> None:
    hits, asked = [hit(1, TEXTS[1], 1.0), hit(2, "Eve did.", None)], []

    def score(pairs: Sequence[tuple[str, str]]) -> Any:
        asked.extend(pairs)
        return np.array([9.0])

    read = finds({"Bob": 3.0, "Eve": 1.0})
    assert answer("who?", hits, Extractive(read, 0.0, 0.5, score)).text == "Eve"
    assert asked == [("who?", "Title Eve did.")]
    assert answer("who?", hits, Extractive(read, 0.0, 0.0, score)).text == "Bob"
    assert len(asked) == 1, "what does not count is not asked for"


@pytest.mark.parametrize("hits", [[], [HITS[2]]])
def test_where_there_is_nothing_to_find_there_is_no_answer(hits: list[Hit]) -> None:
    found = answer("who?", hits, Extractive(finds({"Ada": 3.0}), -9.0, 0.0))
    assert not found.supported
    assert found.score is None
    assert found.read == len(hits)


def test_only_so_many_passages_are_read() -> None:
    found = answer("who?", HITS, Extractive(finds({"Ada": 3.0}), 0.0, 0.0), depth=1)
    assert (found.read, len(found.citations)) == (1, 1)


def test_a_question_without_a_word_and_no_depth_are_refused() -> None:
    reader = Extractive(finds({}), 0.0, 0.0)
    with pytest.raises(ValueError, match="the question is empty"):
        answer(" \n", HITS, reader)
    with pytest.raises(ValueError, match="depth 0"):
        answer("who?", HITS, reader, depth=0)


def test_it_is_json() -> None:
    found = answer("who?", HITS, Extractive(finds({"Ada": 3.0, "Bob": 1.0}), 0.0, 0.0))
    plain = json.loads(json.dumps(found.as_dict()))
    assert plain["supported"] is True
    assert plain["citations"][0]["quote"] == "Ada"
    assert plain["others"] == [{"text": "Bob", "score": 1.0, "id": "d2#0"}]
    assert isinstance(replace(found, text=""), Answer)


@pytest.mark.parametrize(
    ("text", "word", "sentence"),
    [
        ("One. Two three! Four?", "three", "Two three!"),
        ("One. Two three! Four?", "One", "One."),
        ("One. Two three! Four?", "Four", "Four?"),
        ("a heading\n\nand 3.5 metres more", "metres", "and 3.5 metres more"),
        ("He said “no.” Then he left", "left", "Then he left"),
        ("一。二三。四", "三", "二三。"),
        ("  alone  ", "alone", "alone"),
        ("One two. Three four.", "two. Three", "One two. Three four."),
    ],
)
def test_the_sentence_around_a_place(text: str, word: str, sentence: str) -> None:
    at = text.find(word)
    start, end = sentence_around(text, at, at + len(word))
    assert text[start:end] == sentence
    assert start <= at
    assert at + len(word) <= end


def test_every_place_of_a_text_lies_in_its_sentence() -> None:
    text = TEXTS[0] + "\n\n" + TEXTS[1]
    for start in range(len(text)):
        for end in range(start + 1, min(start + 30, len(text))):
            if text[start:end] == text[start:end].strip():
                one = cite(1, hit(1, text), (start, end))
                assert one.sentence[0] <= start < end <= one.sentence[1]
                assert one.quote in one.context


def test_a_model_reads_with_what_it_was_tuned_to() -> None:
    model = cast(UnifiedModel, SimpleNamespace(tasks={"answer": build(width=4, threshold=2.0, rerank_share=0.3)}))
    found = Extractive.of(model)
    assert (found.threshold, found.rerank_share) == (2.0, 0.3)
    with pytest.raises(ValueError, match=r"has not learnt 'answer', it does \['rerank'\]: twofold train squad --from MODEL --add answer"):
        Extractive.of(cast(UnifiedModel, SimpleNamespace(tasks={"rerank": None})))
