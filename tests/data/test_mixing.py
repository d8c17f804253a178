from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from twofold.data.corpus import Corpus
from twofold.data.mixing import ExampleSource, Mixture, TrainingSet, title_pairs
from twofold.data.sources import Dataset, open_dataset
from twofold.errors import DataError
from twofold.records import Document


def toy(name: str = "toy", queries: int = 40, documents: int = 100, **judged: dict[str, int]) -> Dataset:
    """Query qN asks for document dN; `judged` replaces the judgements of single queries."""
    texts = {f"q{n}": f"question {n}" for n in range(queries)}
    grades = {query: judged.get(query, {f"d{query[1:]}": 1}) for query in texts}
    corpus = Corpus.from_documents(Document(f"d{n}", f"title {n}", f"text {n}") for n in range(documents))
    return Dataset(name, corpus, {"train": grades}, texts, lambda: f"fingerprint of {name}")


MINED = {f"q{n}": [(f"d{(n + k) % 100}", 9.0 - k) for k in range(1, 9)] for n in range(40)}


def test_a_batch_is_a_pure_function_of_seed_task_and_step() -> None:
    fresh = TrainingSet(toy(), MINED)
    used = TrainingSet(toy(), MINED)
    for step in reversed(range(25)):
        used.batch("retrieve", step, 8, 3, seed=1)
        used.batch("rerank", step, 4, 7, seed=2)
    for step in (0, 4, 5, 17, 1000):
        assert used.batch("rerank", step, 8, 3, seed=1) == fresh.batch("rerank", step, 8, 3, seed=1)
    first = fresh.batch("rerank", 3, 8, 3, seed=1)
    assert first != fresh.batch("rerank", 3, 8, 3, seed=2)
    assert first != fresh.batch("retrieve", 3, 8, 3, seed=1)
    assert first != fresh.batch("rerank", 4, 8, 3, seed=1)


ORDER = [
    ("toy/q24", ("toy/d24", "toy/d25", "toy/d27")),
    ("toy/q38", ("toy/d38", "toy/d43", "toy/d41")),
    ("toy/q34", ("toy/d34", "toy/d41", "toy/d35")),
]


def test_the_order_does_not_change_between_releases() -> None:
    batch = TrainingSet(toy(), MINED).batch("retrieve", 7, 3, 2, seed=0)
    assert [(example.query_id, example.document_ids) for example in batch] == ORDER


def test_an_epoch_visits_every_query_once() -> None:
    source = TrainingSet(toy(), MINED)
    for epoch in range(3):
        seen = [example.query_id for step in range(5) for example in source.batch("t", epoch * 5 + step, 8, 1, seed=0)]
        assert sorted(seen) == sorted(f"toy/q{n}" for n in range(40))
    assert len({tuple(e.query_id for e in source.batch("t", epoch * 5, 8, 1, seed=0)) for epoch in range(3)}) == 3


def test_an_example_is_a_positive_and_then_its_negatives() -> None:
    source = TrainingSet(toy(), MINED)
    for example in source.batch("t", 0, 8, 3, seed=0):
        number = int(example.query_id.removeprefix("toy/q"))
        assert example.query == f"question {number}"
        assert example.document_ids[0] == f"toy/d{number}"
        assert example.documents[0] == f"title {number} text {number}"
        assert example.grades == (1.0, 0.0, 0.0, 0.0)
        assert {identity.removeprefix("toy/") for identity in example.document_ids[1:]} < {d for d, _ in MINED[f"q{number}"]}
        assert len(set(example.document_ids)) == 4
        assert example.teacher is None


def test_judged_zeros_come_before_mined_and_random_ones() -> None:
    dataset = toy(queries=1, q0={"d0": 2, "d1": 0, "d2": 0, "d3": 1})
    source = TrainingSet(dataset, {"q0": [("d3", 5.0), ("d4", 4.0), ("d1", 3.0)]})
    for step in range(30):
        (example,) = source.batch("t", step, 1, 5, seed=0)
        ids = [identity.removeprefix("toy/") for identity in example.document_ids]
        assert ids[0] in {"d0", "d3"}
        assert example.grades[0] == (2.0 if ids[0] == "d0" else 1.0)
        assert set(ids[1:3]) == {"d1", "d2"}
        assert ids[3] == "d4"
        assert not {"d0", "d3"} & set(ids[4:])
        assert len(set(ids)) == 6
    assert len({source.batch("t", step, 1, 1, seed=0)[0].document_ids for step in range(30)}) == 4


def test_too_few_documents_for_the_negatives() -> None:
    with pytest.raises(DataError, match="toy: 5 negatives for 'q0', but only 3 documents"):
        TrainingSet(toy(queries=1, documents=3)).batch("t", 0, 1, 5, seed=0)


def test_false_negatives_are_kept_apart_where_it_can_be_avoided() -> None:
    judged = {f"q{n}": {f"d{n // 2}": 1} for n in range(40)}
    source = TrainingSet(toy(**judged))
    for step in range(10):
        drawn = [example.document_ids[0] for example in source.batch("t", step, 4, 0, seed=3)]
        assert len(set(drawn)) == 4
    unavoidable = TrainingSet(toy(**{f"q{n}": {"d0": 1} for n in range(40)}))
    assert len(unavoidable.batch("t", 9, 4, 1, seed=0)) == 4


def test_a_positive_of_one_query_is_not_drawn_beside_another_that_it_answers() -> None:
    judged = {f"q{n}": {f"d{n}": 1, f"d{(n + 1) % 40}": 1} for n in range(40)}
    source = TrainingSet(toy(**judged))
    clashes = 0
    for step in range(10):
        batch = source.batch("t", step, 4, 0, seed=0)
        for one in batch:
            for other in batch:
                clashes += one is not other and other.document_ids[0].removeprefix("toy/") in judged[one.query_id.removeprefix("toy/")]
    assert clashes <= 2  # only the end of an epoch may have no other choice


def test_queries_that_read_the_same_are_kept_apart() -> None:
    dataset = toy()
    source = TrainingSet(replace(dataset, texts={query: f"Question {int(query[1:]) // 2}" for query in dataset.texts}))
    for step in range(9):
        assert len({example.query for example in source.batch("t", step, 4, 0, seed=0)}) == 4


def test_ranks_share_one_global_batch() -> None:
    source = TrainingSet(toy(), MINED)
    whole = source.batch("t", 3, 8, 2, seed=0)
    parts = [source.batch("t", 3, 2, 2, seed=0, rank=rank, world=4) for rank in range(4)]
    assert [example for part in parts for example in part] == whole


@pytest.mark.parametrize(("size", "rank", "world"), [(0, 0, 1), (41, 0, 1), (30, 0, 2), (2, 2, 2)])
def test_an_impossible_batch_is_refused(size: int, rank: int, world: int) -> None:
    with pytest.raises(DataError, match="make the batch smaller"):
        TrainingSet(toy()).batch("t", 0, size, 1, seed=0, rank=rank, world=world)


def test_queries_without_a_relevant_document_are_counted() -> None:
    source = TrainingSet(toy(q3={"d1": 0}))
    assert len(source) == 39
    assert source.skipped["query without a relevant document"] == 1
    with pytest.raises(DataError, match="no query of train has a relevant document"):
        TrainingSet(toy(queries=1, q0={"d1": 0}))


def test_negatives_mined_elsewhere_are_refused() -> None:
    with pytest.raises(DataError, match="mined negative 'x9' of query 'q0' is not in the corpus"):
        TrainingSet(toy(), {"q0": [("x9", 1.0)]})


def test_teacher_scores_come_where_all_documents_have_one(tmp_path: Path) -> None:
    path = tmp_path / "teacher.jsonl"
    rows = [{"query-id": f"q{n}", "corpus-id": f"d{d}", "score": n + d / 10} for n in range(20) for d in range(100)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = TrainingSet(toy(), MINED, teacher=path)
    for step in range(5):
        for example in source.batch("t", step, 8, 3, seed=0):
            number = int(example.query_id.removeprefix("toy/q"))
            scores = tuple(number + int(identity.removeprefix("toy/d")) / 10 for identity in example.document_ids)
            assert example.teacher == (scores if number < 20 else None)
    path.write_text('{"query-id": "q0", "corpus-id": "nowhere", "score": 1}\n')
    with pytest.raises(DataError, match=r"teacher.jsonl:1: unknown document id"):
        TrainingSet(toy(), teacher=path)


def test_the_hash_covers_all_that_decides_the_batches() -> None:
    base = TrainingSet(toy(), MINED).sha256
    assert TrainingSet(toy(), MINED).sha256 == base
    others = [
        TrainingSet(toy()),
        TrainingSet(toy("other"), MINED),
        TrainingSet(toy(queries=39), MINED),
        TrainingSet(toy(documents=101), MINED),
        TrainingSet(toy(q3={"d3": 2}), MINED),
        TrainingSet(toy(), MINED | {"q3": [("d9", 1.0)]}),
        TrainingSet(toy(), MINED, teacher={"q3": {"d3": 1.0}}),
        TrainingSet(replace(toy(), sign=lambda: "changed"), MINED),
    ]
    assert len({base, *(other.sha256 for other in others)}) == 9


def test_a_mixture_takes_each_batch_from_one_source_in_proportion() -> None:
    source: ExampleSource = Mixture([TrainingSet(toy("small", 10)), TrainingSet(toy("large", 30))])
    names = []
    for step in range(200):
        batch = source.batch("t", step, 4, 1, seed=0)
        (name,) = {example.query_id.partition("/")[0] for example in batch}
        names.append(name)
    assert abs(Counter(names)["small"] - 50) <= 3
    assert len(source) == 40
    assert source.name == "small+large"
    assert Mixture([TrainingSet(toy("large", 30)), TrainingSet(toy("small", 10))]).sha256 != source.sha256


def test_a_mixture_is_pure_and_skips_no_batch_of_a_source() -> None:
    parts = [TrainingSet(toy("a", 20)), TrainingSet(toy("b", 20))]
    mixture = Mixture(parts, weights=[1, 3])
    counts = Counter[str]()
    for step in range(60):
        batch = mixture.batch("t", step, 4, 1, seed=5)
        name = batch[0].query_id.partition("/")[0]
        part = next(part for part in parts if part.name == name)
        assert batch == part.batch("t", counts[name], 4, 1, seed=5)
        counts[name] += 1
    assert mixture.batch("t", 31, 4, 1, seed=5) == Mixture(parts, weights=[1, 3]).batch("t", 31, 4, 1, seed=5)
    assert abs(counts["a"] - 15) <= 2


def test_impossible_mixtures_are_refused() -> None:
    part = TrainingSet(toy())
    with pytest.raises(DataError, match="each with a name of its own"):
        Mixture([part, part])
    with pytest.raises(DataError, match="expected one or more sources"):
        Mixture([])
    for weights in ([1.0, 2.0], [0.0], [float("nan")], [float("inf")]):
        with pytest.raises(DataError, match="one positive number for each"):
            Mixture([part], weights)


def test_titles_find_their_texts() -> None:
    rows = [Document("a", "Same", "one"), Document("b", "Same", "two"), Document("c", "", "no title"), Document("d", "Other", "three")]
    dataset = replace(toy(), corpus=Corpus.from_documents([*rows, Document("e", "title alone", "")]))
    source = title_pairs(dataset)
    assert len(source) == 2
    examples = {example.query: example for example in source.batch("retrieve", 0, 2, 1, seed=0)}
    assert examples["Same"].documents[0] in {"one", "two"}
    assert examples["Same"].documents[1] == "three"
    assert examples["Other"].document_ids[0] == "toy-titles/d"
    with pytest.raises(DataError, match="no document has a title and a text"):
        title_pairs(replace(dataset, corpus=Corpus.from_documents(rows[2:3])))


@pytest.mark.data
def test_a_real_corpus_is_read_from_disk_while_training(data_dir: Path) -> None:
    source = TrainingSet(open_dataset(data_dir / "wikiqa"))
    assert source.skipped["query without a relevant document"] == 0
    batch = source.batch("rerank", 100, 16, 7, seed=0)
    assert len({example.document_ids[0] for example in batch}) == 16
    assert all(len(example.documents) == 8 for example in batch)
