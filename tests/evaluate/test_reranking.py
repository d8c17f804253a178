"""Reranking, its ceiling and its weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.evaluate.toy import ToySystem, toy_dataset
from twofold.evaluate.measures import mean, per_query
from twofold.evaluate.reranking import oracle, rerank_run, tune_weight
from twofold.ranking import ranked

CANDIDATES = {f"q{i}": {f"d{(i + j) % 10}": -float(j) for j in range(1, 11)} for i in range(6)}
"""A poor first stage: the right document comes last."""


def test_scores_are_the_raw_ones_of_the_best_candidates_only() -> None:
    dataset, system = toy_dataset(), ToySystem()
    run = rerank_run(system.score, CANDIDATES, dataset, "test", depth=3, queries_at_once=4)
    assert list(run["q0"]) == ["d1", "d2", "d3"]
    assert run["q0"]["d2"] == system.score([(dataset.texts["q0"], dataset.corpus.document("d2").body)])[0]
    assert all(ranked(scores)[0] == f"d{query[1:]}" for query, scores in rerank_run(system.score, CANDIDATES, dataset, "test").items())


@pytest.mark.parametrize("bad", [lambda pairs: np.zeros(1), lambda pairs: np.full(len(pairs), np.nan)])
def test_bad_scores_are_refused(bad) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="finite scores"):
        rerank_run(bad, CANDIDATES, toy_dataset(), "test", depth=2)


def test_oracle_lifts_only_what_is_within_reach() -> None:
    qrels = {"q": {"c": 1, "b": 2, "z": 1}}
    run = {"q": {"a": 5.0, "b": 4.0, "c": 3.0, "y": 2.0, "z": 1.0}}
    assert ranked(oracle(run, qrels, 3)["q"]) == ["b", "c", "a", "y", "z"]
    assert ranked(oracle(run, {}, 3)["q"]) == ["a", "b", "c", "y", "z"]


def test_no_reranker_beats_the_oracle() -> None:
    dataset = toy_dataset()
    qrels = {query: dataset.qrels("test")[query] for query in CANDIDATES}
    reranked = rerank_run(ToySystem().score, CANDIDATES, dataset, "test", depth=10)
    ceiling, got = (mean(per_query(run, qrels)["nDCG@10"]) for run in (oracle(CANDIDATES, qrels, 10), reranked))
    assert got <= ceiling == 1


def test_weight_is_the_smallest_of_the_best_and_may_be_zero() -> None:
    qrels = {"q": {"a": 1}}
    good, bad = {"q": {"a": 2.0, "b": 1.0}}, {"q": {"a": 1.0, "b": 2.0}}
    assert tune_weight(good, bad, qrels) == 0
    assert tune_weight(good, good, qrels) == 0
    assert tune_weight(bad, good, qrels, (0, 0.25, 0.75, 1)) == 0.75


def test_a_cautious_weight_is_the_smallest_that_is_hardly_worse() -> None:
    """Reranking helps one query of many: the best weight is above 0, and the gain is within one standard error."""
    qrels = {f"q{i}": {"good": 1} for i in range(20)}
    first = {query: {"good": 1.0, "bad": 0.5 if query != "q0" else 1.5} for query in qrels}
    second = {query: {"good": 1.0, "bad": 0.0} for query in qrels}
    assert tune_weight(first, second, qrels) > 0
    assert tune_weight(first, second, qrels, cautious=True) == 0
    always = {query: {"good": 0.5, "bad": 1.0} for query in qrels}
    assert tune_weight(always, second, qrels, cautious=True) == tune_weight(always, second, qrels) > 0


def test_two_queries_of_the_same_words_are_never_neighbours_in_one_call() -> None:
    """A reranker that reads whole lists knows a list by its query's words; the best candidate comes first."""
    dataset, calls = toy_dataset(), []
    texts = {**dataset.texts, "q1": dataset.texts["q0"]}

    def score(pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        calls.append(list(pairs))
        return np.zeros(len(pairs), dtype=np.float32)

    rerank_run(score, CANDIDATES, replace(dataset, texts=texts), "test", depth=2)
    assert [len(pairs) for pairs in calls] == [2, 10]
    assert calls[0] == [(texts["q0"], dataset.corpus.document(document).body) for document in ("d1", "d2")]
    assert calls[1][0][0] == texts["q1"]
