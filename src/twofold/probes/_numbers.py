"""Numbers as they go into a report, and intervals by resampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES, LEVEL, DIGITS = 1000, 0.95, 6


def rounded(value: float | None, digits: int = DIGITS) -> float | None:
    """A plain number; None for what is none: JSON has no NaN."""
    return None if value is None or not math.isfinite(value) else round(float(value), digits)


def mean_of(values: Iterable[object]) -> float | None:
    """The mean of those that are numbers; None where none is."""
    known = [float(value) for value in values if isinstance(value, int | float)]
    return rounded(float(np.mean(known))) if known else None


def percent(part: float, whole: float) -> int | None:
    """`part` of `whole` in whole percent; None where there is no whole."""
    return round(100 * part / whole) if whole else None


def interval(statistic: Callable[[NDArray[np.int64]], Floats], n: int, seed: int, resamples: int = RESAMPLES) -> tuple[Floats, Floats]:
    """Percentile bootstrap (Efron 1979): the `LEVEL` interval of a statistic of n things, for arrays of statistics at once.

    `statistic` maps (n,) numbers of the things drawn, with repetition, to values; values that are not finite do not count.
    """
    draw = np.random.default_rng(seed)
    drawn = np.array([statistic(draw.integers(n, size=n)) for _ in range(resamples)])
    lost = ~np.isfinite(drawn).any(0)
    low, high = np.nanpercentile(
        np.where(lost, 0.0, np.where(np.isfinite(drawn), drawn, np.nan)), [50 * (1 - LEVEL), 50 * (1 + LEVEL)], axis=0
    )
    return np.where(lost, np.nan, low), np.where(lost, np.nan, high)


def entropy(weight: Floats, axis: int = -1) -> Floats:
    """−Σ p ln p in nats along an axis, of weights that are made to sum to 1 first; 0 where they are all 0."""
    total = weight.sum(axis, keepdims=True)
    p = np.divide(weight, total, out=np.zeros_like(weight, dtype=np.float64), where=total > 0)
    found: Floats = -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis)
    return found
