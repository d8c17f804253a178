from __future__ import annotations

from collections import Counter

from twofold.data.splits import bucket, normalised, separate


def test_buckets_depend_on_the_id_alone_and_are_even() -> None:
    counts = Counter(bucket(f"q{n}") for n in range(10_000))
    assert set(counts) == set(range(10))
    assert max(counts.values()) < 1.15 * min(counts.values())
    assert bucket("q0") == bucket("q0")


def test_normalised_ignores_case_and_punctuation_but_not_words() -> None:
    assert normalised("What is  (are) X?") == normalised("what IS are x")
    assert normalised("a b") != normalised("ab")
    assert normalised("???") == "???"


def test_dev_is_cut_from_train_when_there_is_none() -> None:
    queries = {f"q{n}": f"text {n}" for n in range(500)}
    judged = {"train": {query: {"d": 1} for query in queries}}
    counts: Counter[str] = Counter()
    splits = separate(judged, queries, counts)
    assert set(splits) == {"train", "dev"}
    assert all(bucket(query) == 0 for query in splits["dev"])
    assert all(bucket(query) != 0 for query in splits["train"])
    assert len(splits["train"]) + len(splits["dev"]) == 500
    assert not counts
    assert separate(judged, dict(reversed(queries.items())), counts) == splits


def test_even_a_small_train_gets_a_dev_split() -> None:
    queries = {f"q{n}": f"text {n}" for n in range(20)}
    for size in range(2, 20):
        splits = separate({"train": {f"q{n}": {"d": 1} for n in range(size)}}, queries, Counter())
        assert set(splits) == {"train", "dev"}
    assert set(separate({"train": {"q0": {"d": 1}}}, queries, Counter())) == {"train"}


def test_a_given_dev_split_stays() -> None:
    queries = {f"q{n}": f"text {n}" for n in range(30)}
    judged = {"train": {f"q{n}": {"d": 1} for n in range(20)}, "dev": {f"q{n}": {"d": 1} for n in range(20, 30)}}
    assert separate(judged, queries, Counter()) == judged


def test_train_loses_what_dev_or_test_also_asks() -> None:
    queries = {"a": "same id", "b": "Same question?", "c": "same question", "d": "dev asks", "e": "DEV asks!", "f": "only train"}
    judged = {name: {q: {"d": 1} for q in ids} for name, ids in {"train": "abdf", "dev": "e", "test": "ac"}.items()}
    counts: Counter[str] = Counter()
    splits = separate(judged, queries, counts)
    assert set(splits["train"]) == {"f"}
    assert set(splits["dev"]) == {"e"}
    assert set(splits["test"]) == {"a", "c"}
    assert counts == {"train query also in test": 2, "train query also in dev": 1}


def test_a_cut_dev_shares_no_question_with_train_or_test() -> None:
    queries = {f"q{n}": f"text {n % 50}" for n in range(400)} | {"t": "TEXT 7"}
    judged = {"train": {query: {"d": 1} for query in queries if query != "t"}, "test": {"t": {"d": 1}}}
    counts: Counter[str] = Counter()
    splits = separate(judged, queries, counts)
    texts = {name: {normalised(queries[query]) for query in qrels} for name, qrels in splits.items()}
    assert texts["train"].isdisjoint(texts["dev"] | texts["test"])
    assert texts["dev"].isdisjoint(texts["test"])
    assert sum(map(len, splits.values())) + counts.total() == 401
