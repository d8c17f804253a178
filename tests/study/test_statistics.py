"""Planted truths: what is there is found at its size, what is not is not, as often as promised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from twofold.study.statistics import detectable, effect, hierarchical_bootstrap, holm, interval, ties


def arms(gain: float, draw: np.random.Generator, seeds: int = 3, queries: int = 200, spread: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    base = draw.uniform(0.2, 0.8, queries)
    a, b = (base + shift + draw.normal(0, spread, (seeds, queries)) for shift in (gain, 0.0))
    return a, b


def test_a_planted_gain_is_found_at_its_size() -> None:
    a, b = arms(0.05, np.random.default_rng(0))
    found = effect(a, b)
    assert found.low < 0.05 < found.high and found.low > 0 and found.p < 0.001
    assert found.mean == pytest.approx(a.mean() - b.mean()) and found.relative == pytest.approx(found.mean / b.mean())
    assert (found.queries, found.seeds) == (200, (3, 3)) and found.d > 0.3
    assert found.low < found.low90 < found.high90 < found.high


def test_the_p_is_scipys_of_the_means_over_seeds() -> None:
    a, b = arms(0.01, np.random.default_rng(3), queries=40)
    difference = a.mean(0) - b.mean(0)
    wanted = stats.permutation_test((difference,), lambda x, axis: x.mean(axis), permutation_type="samples", vectorized=True, rng=1).pvalue
    assert effect(a, b).p == pytest.approx(wanted, abs=0.02)


def test_where_nothing_is_there_one_test_in_twenty_says_otherwise_and_intervals_cover() -> None:
    draw, wrong, covered = np.random.default_rng(5), 0, 0
    for i in range(60):
        found = effect(*arms(0.0, draw, queries=60), resamples=499, seed=i)
        wrong += found.p < 0.05
        covered += found.low <= 0 <= found.high
    assert wrong <= 8 and covered >= 50


def test_a_spread_between_seeds_widens_the_interval() -> None:
    """Seeds that differ as a whole are seen by the bootstrap over seeds, and not by one over queries of their means."""
    draw = np.random.default_rng(2)
    a, b = arms(0.0, draw)
    shifted = a + np.array([[-0.1], [0.0], [0.1]])
    narrow, wide = (interval(hierarchical_bootstrap(each, b), 0.95) for each in (a, shifted))
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])


def test_seeds_that_move_together_cancel() -> None:
    """Where seed s is good or bad for both arms, pairing takes it out."""
    a, b = arms(0.0, np.random.default_rng(4))
    move = np.array([[-0.2], [0.0], [0.2]])
    low, high = interval(hierarchical_bootstrap(a + move, b + move), 0.95)
    unmoved = interval(hierarchical_bootstrap(a, b), 0.95)
    assert high - low == pytest.approx(unmoved[1] - unmoved[0], rel=0.01)


def test_the_detectable_difference_is_detected_four_times_in_five() -> None:
    draw, n, spread = np.random.default_rng(6), 150, 0.2
    size = detectable(spread / n**0.5)
    assert size == pytest.approx(2.8016 * spread / n**0.5, rel=1e-3)
    seen = np.mean([stats.ttest_1samp(draw.normal(size, spread, n), 0).pvalue < 0.05 for _ in range(2000)])
    assert 0.77 < seen < 0.83


def test_a_tie_is_an_interval_inside_the_margin() -> None:
    close = effect(*arms(0.0, np.random.default_rng(1), queries=3000, spread=0.05))
    assert ties(close, 0.01) and not ties(close, 0.0005)
    assert not ties(replace(close, high90=0.0101), 0.01) and not ties(effect(*arms(0.05, np.random.default_rng(1))), 0.01)


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]), ([0.5], [0.5]), ([0.9, 0.8], [1.0, 1.0]), ([], []), ([0.02, 0.02], [0.04, 0.04])],
)
def test_holm(p: list[float], adjusted: list[float]) -> None:
    assert holm(p) == pytest.approx(adjusted)


def test_unlike_arms_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes \\(2, 3\\) and \\(2, 4\\)"):
        effect(np.zeros((2, 3)), np.zeros((2, 4)))


def test_equal_arms_differ_by_nothing() -> None:
    same = np.random.default_rng(0).uniform(size=(2, 5))
    found = effect(same, same)
    assert (found.mean, found.p, found.d, found.detectable, found.low, found.high) == (0, 1, 0, 0, 0, 0)
