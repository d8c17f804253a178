"""Dense retrieval over the whole corpus, streamed."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluate.toy import TOPICS, ToySystem, toy_dataset
from twofold.data.corpus import Corpus
from twofold.data.sources import Dataset
from twofold.errors import DataError
from twofold.evaluate.retrieval import dense_run, judged
from twofold.ranking import ranked
from twofold.records import Document


def test_queries_without_a_positive_are_counted_not_measured() -> None:
    questions = judged(toy_dataset(), "test")
    assert sorted(questions.queries) == sorted(questions.qrels) == [f"q{i}" for i in range(6)]
    assert questions.without_positive == 2


def test_a_split_without_positives_is_refused() -> None:
    dataset = Dataset("none", Corpus.from_documents([Document("d", "", "text")]), {"test": {"q": {"d": 0}}}, {"q": "?"}, lambda: "")
    with pytest.raises(DataError, match="none: split 'test' has no query with a positive"):
        judged(dataset, "test")


@pytest.mark.parametrize("chunk", [1, 3, 10, 1000])
def test_equals_the_plain_product_for_any_chunk(chunk: int) -> None:
    dataset, system, told = toy_dataset(), ToySystem(), []
    run = dense_run(
        system.encode_queries, system.encode_documents, dataset, "test", 4, chunk, lambda what, done, total: told.append((done, total))
    )
    bodies = [document.body for document in dataset.corpus]
    for query, scores in run.items():
        product_N = system.encode_documents(bodies) @ system.encode_queries([dataset.texts[query]])[0]
        expected = dict(zip(dataset.corpus.ids, product_N.tolist(), strict=True))
        assert sorted(scores.values()) == pytest.approx(sorted(expected.values())[-4:], abs=1e-6)
        assert ranked(scores)[0] == f"d{query[1:]}"
    assert told[-1] == (len(TOPICS), len(TOPICS))


def test_own_id_leaves_room_for_another() -> None:
    documents = [Document("q", "", "red fox"), Document("a", "", "red dog"), Document("b", "", "grey cat")]
    dataset = Dataset("arguana", Corpus.from_documents(documents), {"test": {"q": {"a": 1}}}, {"q": "red fox"}, lambda: "")
    system = ToySystem()
    run = dense_run(system.encode_queries, system.encode_documents, dataset, "test", depth=2)
    assert ranked(run["q"]) == ["a", "b"]


def test_vectors_must_be_finite_and_one_per_text() -> None:
    dataset, system = toy_dataset(), ToySystem()
    with pytest.raises(ValueError, match="not finite"):
        dense_run(system.encode_queries, lambda texts: np.full((len(texts), 64), np.nan, dtype=np.float32), dataset, "test")
    with pytest.raises(ValueError, match=r"should be \(6, D\)"):
        dense_run(lambda texts: np.zeros((2, 64), dtype=np.float32), system.encode_documents, dataset, "test")
