from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from twofold.data.beir import write_folder
from twofold.data.check import BEGINNING, SAMPLE, SAMPLE_CHARACTERS, evenly, examine
from twofold.data.corpus import Corpus
from twofold.data.sources import Dataset, open_dataset
from twofold.records import Document, Query


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def dataset(documents: list[Document], judged: dict[str, dict[str, dict[str, int]]], texts: dict[str, str]) -> Dataset:
    return Dataset("toy", Corpus.from_documents(documents), judged, texts, lambda: "x")


def test_everything_is_counted(tmp_path: Path) -> None:
    documents = [Document(f"d{n}", "", f"the text of number {n} and more") for n in range(20)]
    documents += [Document("again", "", "The  text of number 3 AND more"), Document("tiny", "", "a b"), Document("self", "", "Question 5!")]
    queries = [Query(f"q{n}", f"question {n}") for n in range(8)] + [Query("x", "QUESTION 0"), Query("t", "question 1"), Query("s", "?")]
    judged = {
        "train": [(f"q{n}", f"d{n}", 1) for n in range(5)] + [("q0", "d1", 2), ("q0", "d2", 0), ("x", "d0", 1), ("s", "d9", 0)],
        "dev": [("q5", "self", 1), ("q6", "d6", 1)],
        "test": [("q7", "d1", 1), ("q7", "d8", 1), ("t", "d10", 1)],
    }
    write_folder(tmp_path, documents, queries, judged)
    (tmp_path / "teacher.jsonl").write_text('{"query-id": "q0", "corpus-id": "d1", "score": 1.5}\n')
    facts = examine(open_dataset(tmp_path), words)
    train = facts.splits["train"]
    assert (facts.documents, facts.scanned) == (23, 23)
    assert (train.queries, train.positives, train.most_positives, train.zeros, train.queries_with_zeros) == (6, 6, 2, 2, 2)
    assert (train.without_positive, train.repeated, train.short) == (1, 1, 1)
    assert facts.skipped == {"train query also in test": 1}
    assert (facts.repeats, facts.repeat_example, facts.short_documents) == (1, ("d3", "again"), ("tiny",))
    assert (facts.asks_itself, facts.pairs_sampled) == (1, 9)
    assert (facts.test_in_train, facts.test_documents, facts.with_teacher) == (1, 3, 1)
    assert facts.sample is not None
    assert sorted(facts.sample.document_D) == sorted(words([document.body for document in documents]))
    assert facts.sample.pair_P2.shape == (9, 2) and facts.sample.pair_P2[0].tolist() == [2, 7]


def test_queries_of_dev_and_test_that_read_the_same_are_counted() -> None:
    texts = {"a": "one question", "b": "One question?", "c": "another"}
    facts = examine(dataset([Document("d", "", "x")], {"train": {"c": {"d": 1}}, "dev": {"a": {"d": 1}}, "test": {"b": {"d": 1}}}, texts))
    assert facts.shared == {("dev", "test"): 1} and facts.sample is None


def test_a_scan_of_few_reads_them_evenly() -> None:
    documents = [Document(f"d{n}", "", f"text {n // 2} of ten") for n in range(100)]
    whole = dataset(documents, {"train": {"q": {"d0": 1}}}, {"q": "q"})
    assert (examine(whole).scanned, examine(whole).repeats) == (100, 50)
    few = examine(whole, scan=10)
    assert (few.scanned, few.repeats) == (10, 0)
    assert examine(whole, scan=1000).scanned == 100
    seen: list[tuple[str, int, int]] = []
    examine(whole, words, progress=lambda *now: seen.append(now))
    assert ("documents read", 100, 100) in seen and ("documents tokenised", 100, 100) in seen


def test_no_more_is_tokenised_than_a_sample() -> None:
    longest = 0
    total = 0

    def count(texts: Sequence[str]) -> list[int]:
        nonlocal longest, total
        longest, total = max(longest, *map(len, texts)), total + sum(map(len, texts))
        return [len(text) // 2 for text in texts]

    documents = [Document(f"d{n}", "", "word " * 10_000) for n in range(200)] + [Document("huge", "", "word " * 1_000_000)]
    texts = {f"q{n}": f"question {n}" for n in range(201)}
    judged = {"train": {f"q{n}": {document.id: 1} for n, document in enumerate(documents)}}
    facts = examine(dataset(documents, judged, texts), count)
    assert longest <= BEGINNING and total < 3 * SAMPLE_CHARACTERS
    assert facts.sample is not None and abs(int(facts.sample.document_D[0]) - 25_000) < 5
    many = examine(dataset(documents, {"train": {f"q{n}": {"d0": 1} for n in range(5000)}}, {f"q{n}": "q q" for n in range(5000)}), words)
    assert many.sample is not None and len(many.sample.query_Q) == SAMPLE


@given(st.lists(st.integers(), max_size=50), st.integers(1, 60))
def test_evenly_spaced(items: list[int], count: int) -> None:
    chosen = evenly(items, count)
    assert len(chosen) == min(count, len(items))
    rest = iter(items)
    assert all(any(one == other for other in rest) for one in chosen), "in order"


def test_documents_alone_are_counted_like_any_dataset(tmp_path: Path) -> None:
    rows = [{"title": f"Title {n}", "text": "A text that is long enough to be found again. " * 2 + str(n)} for n in range(50)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts = examine(open_dataset(tmp_path), words)
    assert sum(split.queries for split in facts.splits.values()) == 50 and facts.asks_itself == 0
