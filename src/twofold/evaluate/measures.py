"""Measures of runs, computed by ir_measures with trec_eval's code (pytrec_eval) and named as ir_measures names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ir_measures

from twofold.ranking import ranked
from twofold.records import Qrels, Run

MEASURES = ("nDCG@10", "R@100", "AP", "RR")


def per_query(run: Run, qrels: Qrels, measures: Sequence[str] = MEASURES) -> dict[str, dict[str, float]]:
    """Measure → query id → value, for every query of `qrels`; a query that the run lacks counts 0.

    trec_eval keeps scores in 32 bits and breaks ties by descending document id, so it could reorder a list behind our
    back: it is given ranks for scores, and what is measured is exactly the order of `ranked`.

    Raises ValueError where `qrels` is empty or ir_measures does not know a measure's name.
    """
    if not qrels:
        raise ValueError("no judged queries: there is nothing to measure a run against")
    parsed = {ir_measures.parse_measure(name): name for name in measures}
    ranks = {query: {document: -float(rank) for rank, document in enumerate(ranked(run[query]))} for query in qrels if run.get(query)}
    judged = {query: dict(grades) for query, grades in qrels.items()}
    values = {name: dict.fromkeys(qrels, 0.0) for name in measures}
    if ranks:
        for metric in ir_measures.pytrec_eval.iter_calc(list(parsed), judged, ranks):
            values[parsed[metric.measure]][metric.query_id] = float(metric.value)
    return values


def mean(values: Mapping[str, float]) -> float:
    """The mean over queries."""
    return sum(values.values()) / len(values)
