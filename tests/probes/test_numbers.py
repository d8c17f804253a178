"""Numbers as reports hold them."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from twofold.probes._numbers import entropy, interval, mean_of, percent, rounded


def test_what_json_cannot_hold_is_none() -> None:
    assert rounded(0.12345678) == 0.123457
    assert rounded(float("nan")) is rounded(float("inf")) is rounded(None) is None


def test_means_are_of_numbers() -> None:
    assert mean_of([1, None, 2.0, "x"]) == 1.5
    assert mean_of([None]) is None


def test_whole_percents() -> None:
    assert percent(1, 3) == 33 and percent(-1, 2) == -50 and percent(1, 0) is None


def test_entropy_is_of_shares() -> None:
    found = entropy(np.array([[1.0, 1], [2, 0], [0, 0], [3, 1]]))
    assert found.tolist() == pytest.approx([log(2), 0, 0, -0.75 * log(0.75) - 0.25 * log(0.25)])


def test_a_bootstrap_interval_holds_the_mean_about_as_often_as_it_says() -> None:
    draw, inside = np.random.default_rng(0), 0
    for i in range(60):
        value = draw.normal(size=(40, 2))
        low, high = interval(lambda at, value=value: value[at].mean(0), 40, i, resamples=200)  # type: ignore[misc]
        inside += int(((low <= 0) & (high >= 0)).sum())
    assert 105 <= inside <= 120  # 114 of 120


def test_what_is_never_known_has_no_interval() -> None:
    low, high = interval(lambda at: np.array([np.nan, at.mean()]), 5, 0, resamples=20)
    assert np.isnan(low[0]) and np.isnan(high[0]) and low[1] < high[1]
