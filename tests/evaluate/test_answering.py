"""From question to answer on a toy corpus: rows, what was found, and every question in the file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from tests.evaluate.test_answers import Toy, dataset
from tests.evaluate.toy import ToySystem
from twofold.evaluate.answering import Depths, answer_dataset
from twofold.model.unified import UnifiedModel
from twofold.tasks.answer import build


class Model(Toy, ToySystem):
    """Retrieves and scores by shared words, and finds the word behind "the"."""

    variant_weights: dict[str, float] = {}  # noqa: RUF012

    def __init__(self, threshold: float, wrong: Sequence[str] = ()) -> None:
        super().__init__(wrong=wrong)
        self.tasks = {"retrieve": None, "rerank": None, "answer": build(width=4, threshold=threshold)}

    def encode(self, texts: Sequence[str]) -> Any:
        return self.encode_queries(texts)


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twofold.model.system._facts", lambda _: {"backbone": "toy"})


def test_all_rows_from_question_to_answer(tmp_path: Path) -> None:
    model = cast(UnifiedModel, Model(0.0))
    found = answer_dataset(model, "answer", dataset(), name="toy", depths=Depths(4, 1), before=model)
    assert found.rows["passage given"] == {"exact_match": 1.0, "f1": 1.0}
    assert found.rows["end to end"] == {"exact_match": 1.0, "f1": 1.0, "answered": 1.0}
    assert found.rows["end to end, or nothing"]["f1"] == 1.0
    assert found.rows["nothing there"] == {"exact_match": 1.0, "f1": 1.0, "answered": 0.0}
    assert found.found == {"first": 1.0, "read": 1.0}
    assert found.older == {"vectors": 5, "scores": 5, "changed": 0}
    assert found.data == {"name": "toy", "split": "test", "sha256": "f" * 64, "questions": 5, "documents": 10}
    found.save(tmp_path / "toy.json")
    plain = json.loads((tmp_path / "toy.json").read_text())
    assert plain["kind"] == "answering"
    assert plain["per_question"] == {f"q{i}": {"given": 1.0, "end_to_end": 1.0} for i in range(5)}


def test_a_threshold_declines_and_a_wrong_passage_misleads() -> None:
    high = answer_dataset(cast(UnifiedModel, Model(1e9)), "answer", dataset(), depths=Depths(4, 2))
    assert high.rows["end to end, or nothing"] == {"exact_match": 0.0, "f1": 0.0, "answered": 0.0}
    assert high.rows["nothing there"] == {"exact_match": 1.0, "f1": 1.0, "answered": 0.0}
    assert high.rows["end to end"]["answered"] == 1.0
    low = answer_dataset(cast(UnifiedModel, Model(0.0)), "answer", dataset(), depths=Depths(4, 2))
    assert low.rows["nothing there"]["answered"] == 1.0
    assert low.rows["nothing there"]["f1"] == 0.0
    assert low.rows["end to end"]["f1"] < 1.0, "the toy trusts the longest passage"
    assert low.found["read"] == 1.0


def test_a_sample_is_stable_and_only_of_those() -> None:
    model = cast(UnifiedModel, Model(0.0))
    two, three, whole = (answer_dataset(model, "answer", dataset(), sample=size) for size in (2, 3, None))
    asked = [{one for one, row in found.per_question.items() if "end_to_end" in row} for found in (two, three, whole)]
    assert [len(each) for each in asked] == [2, 3, 5]
    assert asked[0] < asked[1] < asked[2]
    assert all(len(found.per_question) == 5 and found.rows["passage given"] == whole.rows["passage given"] for found in (two, three))
    assert "passage given, of the sample" in two.rows
    assert "passage given, of the sample" not in whole.rows


def test_a_task_that_the_model_does_not_do_is_named() -> None:
    with pytest.raises(ValueError, match=r"not made for 'answer:legal': it does \['answer', 'rerank', 'retrieve'\]"):
        answer_dataset(cast(UnifiedModel, Model(0.0)), "answer:legal", dataset())
