"""Measures against figures worked out by hand."""

from __future__ import annotations

import math

import pytest

from twofold.evaluate.measures import MEASURES, mean, per_query


def test_by_hand() -> None:
    qrels = {"q": {"a": 1, "b": 1}}
    values = per_query({"q": {"x": 3.0, "a": 2.0, "b": 1.0}}, qrels)
    assert set(values) == set(MEASURES)
    assert values["RR"]["q"] == pytest.approx(1 / 2)
    assert values["AP"]["q"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert values["R@100"]["q"] == 1
    assert values["nDCG@10"]["q"] == pytest.approx((1 / math.log2(3) + 1 / math.log2(4)) / (1 + 1 / math.log2(3)))


def test_grades_are_gains() -> None:
    values = per_query({"q": {"a": 1.0, "b": 2.0}}, {"q": {"a": 3, "b": 1}}, ("nDCG@10",))
    assert values["nDCG@10"]["q"] == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)))


def test_missing_and_empty_queries_count_zero() -> None:
    values = per_query({"q1": {"a": 1.0}, "q2": {}, "other": {"a": 1.0}}, {"q1": {"a": 1}, "q2": {"a": 1}, "q3": {"a": 1}}, ("RR",))
    assert values == {"RR": {"q1": 1.0, "q2": 0.0, "q3": 0.0}}
    assert mean(values["RR"]) == pytest.approx(1 / 3)
    assert per_query({}, {"q": {"a": 1}}, ("RR",)) == {"RR": {"q": 0.0}}


def test_what_is_measured_is_our_order_not_trec_evals() -> None:
    """trec_eval would break the first tie by descending id, and lose the second difference in 32 bits."""
    assert per_query({"q": {"a": 1.0, "b": 1.0}}, {"q": {"a": 1}}, ("RR",))["RR"]["q"] == 1
    assert per_query({"q": {"a": 1.0 + 1e-12, "b": 1.0}}, {"q": {"a": 1}}, ("RR",))["RR"]["q"] == 1


def test_nothing_judged_is_an_error() -> None:
    with pytest.raises(ValueError, match="no judged queries"):
        per_query({}, {})
