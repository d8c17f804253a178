"""Properties of texts whose properties one can see."""

from __future__ import annotations

from math import log

import pytest

from twofold.probes._material import Sample
from twofold.probes._properties import (
    STATEMENT,
    classes,
    document_frequency,
    entities,
    idf,
    keys,
    overlap,
    properties_of_pairs,
    properties_of_texts,
    question,
    terms,
)
from twofold.records import Document

CORPUS = [Document("1", "Red", "the fox runs"), Document("2", "", "a red dog"), Document("3", "", "it is blue")]


def test_terms_are_words_without_stop_words() -> None:
    assert terms("The fox's p53, and a COVID-19 test!") == ["fox", "p53", "covid", "19", "test"]


def test_idf_is_bm25s() -> None:
    frequency, total = document_frequency(CORPUS)
    assert (frequency["red"], frequency["fox"], total) == (2, 1, 3)
    assert idf("red", frequency, total) == pytest.approx(log(1 + 1.5 / 2.5))
    assert idf("nowhere", frequency, total) > idf("fox", frequency, total) > idf("red", frequency, total)


def test_overlap_counts_different_terms() -> None:
    assert overlap("red red fox", "a fox") == 0.5
    assert overlap("the", "the") == 0


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("The fox met Anna.", 1 / 4),
        ("nothing here", 0),
        ("It hit NASA. The p53 protein, too", 2 / 7),
        ("", 0),
        ("Words. Begin sentences", 0),
    ],
)
def test_entities_are_words_that_look_like_names(text: str, names: float) -> None:
    assert entities(text) == pytest.approx(names)


def test_questions_by_their_first_question_word() -> None:
    assert question("In what year was the war, and why?") == "what"
    assert question("How many") == "how"
    assert question("Vitamin D is made in the skin") == STATEMENT


def test_values_become_classes() -> None:
    assert classes([1.0, 2.0, 3.0, 4.0]) == ["low", "low", "low", "high"]
    assert classes([0.0, 1.0, 1.0, 1.0]) == ["low", "high", "high", "high"]
    assert classes(["what", "how"]) == ["what", "how"]


def test_a_key_is_the_rarest_term_that_recurs() -> None:
    texts = ["red fox", "red dog", "red fox cat", "fox cow", "red"]
    assert keys(texts, fewest=3) == ["fox", "red", "fox", "fox", "red"]
    assert keys(["alone", ""], fewest=3) == ["alone", ""]


def test_every_property_has_a_value_for_every_input() -> None:
    frequency, total = document_frequency(CORPUS)
    one = Sample("tiny", ("q",), ("what is a red fox",), ("the red fox", "a dog"), ((0, 0, 1), (0, 1, 0)))
    pairs = properties_of_pairs(one, [9, 7], frequency, total)
    assert pairs["relevance"] == ["relevant", "other"] and pairs["question"] == ["what", "what"]
    assert pairs["overlap"] == pytest.approx([2 / 3, 0]) and pairs["length"] == [9, 7]  # "what" is a term, and is not there
    shared, missing = idf("red", frequency, total) + idf("fox", frequency, total), idf("what", frequency, total)
    assert pairs["idf"] == pytest.approx([shared / (shared + missing), 0])
    texts = properties_of_texts(["the red fox", ""], [5, 2], frequency, total)
    assert texts["idf"][1] == 0 and float(texts["idf"][0]) == pytest.approx(
        (idf("red", frequency, total) + idf("fox", frequency, total)) / 2
    )
