"""SQuAD's measures against values worked out by hand; what was read, what is chosen and tuned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from tests.evaluate.toy import toy_dataset
from twofold.data.sources import Dataset
from twofold.errors import DataError
from twofold.evaluate.answers import (
    Candidate,
    Reading,
    exact_match,
    f1,
    given_passages,
    measured,
    normalised,
    questions,
    read_passages,
    tune,
)
from twofold.model.unified import UnifiedModel
from twofold.tasks.answer import Span


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ("The  Apollo Program!", "apollo program"),
        ("an A-class, the best", "aclass best"),
        ("a", ""),
        ("Zürich", "zürich"),
        ("“1,000”", "“1000”"),
    ],
)
def test_answers_are_compared_as_the_official_script_does(given: str, same: str) -> None:
    assert normalised(given) == same


@pytest.mark.parametrize(
    ("given", "answers", "exact", "words"),
    [
        ("October 1973", ["1973", "October 1973"], 1, 1),
        ("in October 1973", ["October 1973"], 0, 0.8),
        ("october october", ["October 1973"], 0, 0.5),
        ("Paris", ["Rome", "the Paris"], 1, 1),
        ("Paris", ["Rome"], 0, 0),
        ("", ["Rome"], 0, 0),
        ("", [], 1, 1),
        ("Paris", [], 0, 0),
        ("the", ["a"], 1, 1),
    ],
)
def test_exact_match_and_f1_by_hand(given: str, answers: list[str], exact: float, words: float) -> None:
    assert exact_match(given, answers) == exact
    assert f1(given, answers) == pytest.approx(words)


def test_means_over_questions() -> None:
    assert measured(["Paris", "in October 1973"], [["Paris"], ["October 1973"]]) == {"exact_match": 0.5, "f1": pytest.approx(0.9)}


def dataset() -> Dataset:
    """Topic i is the answer to question i, but question 5 has none."""
    toy = toy_dataset()
    return replace(toy, answers={f"q{i}": (toy.corpus.document(f"d{i}").title.split()[0],) for i in range(5)})


def test_questions_have_answers_and_their_passage() -> None:
    asked = questions(dataset(), "test")
    assert [(one.id, one.answers, one.passage.id) for one in asked[:2]] == [("q0", ("apple",), "d0"), ("q1", ("blue",), "d1")]
    assert len(asked) == 5
    with pytest.raises(DataError, match=r"toy: no query of test has answers"):
        questions(toy_dataset(), "test")


class Toy:
    """Finds the first word behind "the", with the passage's length as its score; nothing where there is no "the"."""

    def predict(self, task: str, items: Sequence[tuple[str, str, str]]) -> list[list[Span]]:
        assert task == "answer"
        found = []
        for _, _, text in items:
            at = text.find("the ")
            end = text.find(" ", at + 4) if at >= 0 else 0
            found.append([Span(at + 4, end, float(len(text)))] if at >= 0 else [])
        return found


def test_given_the_passage_its_best_span_is_the_answer() -> None:
    asked = questions(dataset(), "test")
    assert given_passages(cast(UnifiedModel, Toy()), "answer", asked) == ["apple", "blue", "cold", "deep", "early"]


def test_what_is_read_and_which_of_it_may_answer() -> None:
    asked = questions(dataset(), "test")[:2]
    run = {"q0": {"d0": 1.0, "d1": 2.0, "d2": 0.5}, "q1": {"d5": 1.0}}
    readings = read_passages(cast(UnifiedModel, Toy()), "answer", dataset(), asked, run, {"q0": {"d0": 7.0}}, 2)
    assert [(one.text, one.pair, one.right) for one in readings[0].candidates] == [("blue", 0.0, False), ("apple", 7.0, True)]
    assert [one.text for one in readings[1].candidates] == ["fast"]
    assert readings[0].without_right() == Reading((), readings[0].candidates[:1])


def reading(answers: Sequence[str], *rows: tuple[str, float, float, bool]) -> Reading:
    return Reading(tuple(answers), tuple(Candidate(*row) for row in rows))


def test_the_pair_score_counts_as_its_share_says() -> None:
    one = reading(["x"], ("y", 2.0, 0.0, False), ("x", 1.0, 4.0, True))
    assert one.best(0.0) == ("y", 2.0)
    assert one.best(0.5) == ("x", 3.0)
    assert reading(["x"]).best(1.0) == ("", float("-inf"))


def test_the_share_and_the_threshold_are_those_that_separate() -> None:
    """Right spans score 5 or more where the pair score helps, wrong ones -1 and less."""
    rows = [reading(["x"], ("x", 1.0, 20.0, True), ("y", 2.0, -20.0, False)) for _ in range(3)]
    share, threshold, found = tune(rows)
    assert share == 0.05
    assert 1.0 < threshold < 2.0
    assert found == {"answer": 1.0, "answer or nothing": 1.0}


def test_where_nothing_can_be_told_apart_the_middle_is_taken_and_empty_readings_are_no_harm() -> None:
    share, _, found = tune([reading(["x"], ("x", 1.0, 0.0, True)), reading(["x"])])
    assert share == 0.0
    assert found["answer"] == 0.5
    assert tune([reading(["x"])])[1] == 0.0
    never: Any = tune([reading(["x"], ("y", 3.0, 0.0, False))])
    assert never[1] > 3.0, "what is always wrong is better not said"
