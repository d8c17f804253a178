from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twofold.data.check import Facts, Sample, SplitFacts
from twofold.data.findings import STEPS, Demand, Limits, as_dict, judge, lengths, step_up

LIMITS = Limits(query=16, document=64, pair=96, reach=512)
DEMANDS = {"retrieve": Demand(32, 1), "rerank": Demand(16, 3)}
SPLIT = SplitFacts(queries=1000, positives=1100, most_positives=3, zeros=0, queries_with_zeros=0, without_positive=0, repeated=0, short=0)


def sample(query: int = 10, document: int = 50) -> Sample:
    return Sample(np.full(100, query), np.full(100, document), np.tile([query, document], (100, 1)))


def facts(**changes: Any) -> Facts:
    splits = {"train": SPLIT, "dev": replace(SPLIT, queries=100), "test": replace(SPLIT, queries=100)}
    plain: dict[str, Any] = {
        "name": "toy", "documents": 5000, "splits": splits, "sample": sample(), "scanned": 5000, "short_documents": (), "repeats": 0,
        "repeat_example": None, "asks_itself": 0, "pairs_sampled": 100, "shared": {}, "test_in_train": 0, "test_documents": 90,
        "with_teacher": 0,
    }  # fmt: skip
    return Facts(**{**plain, **changes})


def splits(**changes: Any) -> dict[str, SplitFacts]:
    return {**facts().splits, "train": replace(SPLIT, **changes)}


def test_nothing_is_found_where_all_is_well() -> None:
    assert judge(facts(), LIMITS, DEMANDS) == []


FINDINGS: list[tuple[Facts, str, str, str, str]] = [
    (facts(splits={"test": SPLIT}), "error", "nothing to learn", "no training query", "train.jsonl"),
    (facts(splits=splits(queries=20)), "error", "batch", "20 training queries for a batch of 32 (retrieve)", "tasks.retrieve.batch to 10"),
    (facts(documents=5), "error", "negatives", "5 documents for 3 negatives of every query (rerank)", "tasks.rerank.negatives"),
    (facts(splits=splits(queries=60)), "warning", "little data", "only 60 training queries", "few hundred"),
    (facts(splits=splits(queries=100)), "note", "few batches", "a batch of 32", "such as 12"),
    (facts(splits={"train": SPLIT}), "warning", "no dev", "no dev split", "dev.jsonl"),
    (facts(splits={"train": SPLIT}), "note", "no test", "no test split", "test.jsonl"),
    (facts(splits={**facts().splits, "dev": replace(SPLIT, queries=10)}), "note", "few in dev", "10 queries in dev", ""),
    (facts(splits=splits(without_positive=1)), "note", "no positive", "left out of train: 1 query of 1,000", ""),
    (facts(splits=splits(without_positive=900)), "warning", "no positive", "900 queries", ""),
    (facts(splits=splits(repeated=2)), "note", "repeated queries", "2 queries of train", ""),
    (facts(shared={("dev", "test"): 3}), "warning", "leak", "3 queries in dev and in test", "out of dev"),
    (facts(skipped={"train query also in test": 4}), "note", "leak removed", "left out of train: 4 queries also in test", ""),
    (facts(test_in_train=7), "note", "test documents in train", "7 of the 90 relevant documents", "usual"),
    (facts(sample=sample(document=300)), "warning", "cut documents", "100% of the documents are cut at 64", "max_length to 384"),
    (facts(sample=sample(query=40)), "warning", "cut queries", "cut at 16 tokens", "backbone.query_length to 48"),
    (facts(sample=sample(document=90)), "warning", "cut pairs", "cut at 96 tokens", "backbone.pair_length to 128"),
    (facts(repeats=1, repeat_example=("a", "b")), "note", "repeated documents", "1 document the same as another, for example 'a' and", ""),
    (facts(repeats=600, scanned=2000), "warning", "repeated documents", "(of 2,000 that were read)", ""),
    (facts(short_documents=("a", "b")), "note", "short documents", "2 documents of fewer than 10 characters: 'a', 'b'", ""),
    (facts(splits=splits(short=1)), "note", "short queries", "1 query of fewer than 3", ""),
    (facts(asks_itself=2), "warning", "query is document", "of 100 sampled queries 2 with the query itself", "remove"),
    (facts(skipped={"not valid JSON": 2}), "note", "skipped", "2 × not valid JSON", ""),
    (facts(with_teacher=5), "note", "teacher", "5 training queries with a teacher's scores", "teacher_weight"),
]  # fmt: skip


@pytest.mark.parametrize(("given_facts", "level", "about", "text", "advice"), FINDINGS, ids=[f"{row[1]}-{row[2]}" for row in FINDINGS])
def test_each_thing_is_found_with_its_level_and_advice(given_facts: Facts, level: str, about: str, text: str, advice: str) -> None:
    (found,) = [finding for finding in judge(given_facts, LIMITS, DEMANDS) if finding.about == about]
    assert found.level == level and text in found.text and advice in found.advice


def test_the_worst_comes_first_and_nothing_is_asked_where_nothing_is_trained() -> None:
    found = judge(facts(splits=splits(queries=20), repeats=1, asks_itself=1), LIMITS, DEMANDS)
    assert [finding.level for finding in found] == sorted((finding.level for finding in found), key=["error", "warning", "note"].index)
    assert not any(finding.level == "error" for finding in judge(facts(splits=splits(queries=1)), LIMITS, {}))


def test_a_limit_that_the_model_sets_is_not_advised_against() -> None:
    found = judge(facts(sample=sample(document=300)), replace(LIMITS, document=64, reach=64), DEMANDS)
    assert "passages" in next(finding.advice for finding in found if finding.about == "cut documents")


def test_cuts_in_training_are_one_note() -> None:
    found = judge(facts(), replace(LIMITS, training_document=32, training_pair=48), DEMANDS)
    assert [(one.level, one.text) for one in found] == [
        ("note", "while training, 100% of the documents and 100% of the pairs are cut (optim.max_length and optim.pair_length)")
    ]


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=60), st.integers(4, 600))
def test_lengths_count_what_the_template_adds_and_what_is_cut(tokens: list[int], limit: int) -> None:
    values = np.array(tokens)
    measured = facts(sample=Sample(values, values, np.stack([values, values], axis=1)))
    rows = lengths(measured, Limits(limit, limit, limit, around_document=2, around_pair=3))
    assert rows["documents"].cut == sum(count + 2 > limit for count in tokens) / len(tokens)
    assert rows["pairs"].cut == sum(min(count, limit) + count + 3 > limit for count in tokens) / len(tokens)
    assert rows["queries"].median <= rows["queries"].p95 <= rows["queries"].longest == max(tokens)


@given(st.integers(0, 10_000), st.integers(8, 10_000))
def test_steps_hold_the_length_where_they_may(length: int, most: int) -> None:
    step = step_up(length, most)
    assert step <= most and (step in STEPS or step == most) and (step >= length or step == min(most, STEPS[-1]))


def test_the_dictionary_is_json() -> None:
    bad = facts(splits=splits(queries=20))
    found = json.loads(json.dumps(as_dict(bad, LIMITS, judge(bad, LIMITS, DEMANDS))))
    assert found["ok"] is False and found["splits"]["train"]["queries"] == 20 and found["lengths"]["documents"]["p95"] == 52
    assert as_dict(facts(sample=None), LIMITS, [])["ok"] is True
