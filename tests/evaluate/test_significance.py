"""Paired tests: exact where small, seeded, and defined where scipy's are not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from twofold.evaluate.significance import bootstrap_interval, paired_delta, paired_randomisation


def exact_p(a: np.ndarray, b: np.ndarray) -> float:
    """Every swap, by hand: twice the smaller tail."""
    d = a - b
    means = np.array([np.mean(d * np.array(signs)) for signs in itertools.product((1, -1), repeat=len(d))])
    return min(1.0, 2 * min((means >= d.mean() - 1e-12).mean(), (means <= d.mean() + 1e-12).mean()))


def test_small_samples_are_exact() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random(8), rng.random(8) * 0.7
    assert paired_randomisation(a, b) == pytest.approx(exact_p(a, b))


def test_seeded_and_symmetric() -> None:
    rng = np.random.default_rng(1)
    a = rng.random(60)
    b = a + rng.normal(0.02, 0.1, 60)
    assert paired_randomisation(a, b, 999, seed=5) == paired_randomisation(a, b, 999, seed=5)
    assert paired_randomisation(a, b, 999) == pytest.approx(paired_randomisation(b, a, 999), abs=0.03)


def test_equal_systems_and_one_query() -> None:
    a = np.array([0.1, 0.5, 0.3])
    assert paired_randomisation(a, a) == 1
    assert paired_randomisation(a[:1], a[1:2]) == 1
    assert bootstrap_interval(a - a) == (0, 0)
    assert bootstrap_interval(np.array([0.25])) == (0.25, 0.25)


def test_clear_difference_is_significant() -> None:
    rng = np.random.default_rng(2)
    low, high = bootstrap_interval(rng.normal(0.2, 0.1, 100), resamples=999)
    assert 0.17 < low < 0.2 < high < 0.24
    assert paired_randomisation(np.full(100, 0.7) + rng.normal(0, 0.01, 100), np.full(100, 0.5), 999) < 0.01


def test_interval_where_bca_is_undefined() -> None:
    """One query differs by a hair: BCa's correction is degenerate or extreme, the interval stays finite and ordered."""
    difference = np.zeros(40)
    difference[7] = 1e-9
    low, high = bootstrap_interval(difference, resamples=199)
    assert np.isfinite([low, high]).all()
    assert low <= high


def test_delta_counts_and_pairs_by_query() -> None:
    delta = paired_delta({"x": 1.0, "y": 0.5, "z": 0.2}, {"z": 0.4, "y": 0.5, "x": 0.0})
    assert (delta.wins, delta.losses, delta.ties) == (1, 1, 1)
    assert delta.mean == pytest.approx(0.8 / 3)
    with pytest.raises(ValueError, match="same queries"):
        paired_delta({"x": 1.0}, {"y": 1.0})


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="one value per query"):
        paired_randomisation(np.zeros(3), np.zeros(4))
