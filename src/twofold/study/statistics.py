"""The tests of a study: paired over queries, with intervals over seeds and queries. Pure functions of arrays.

Shapes: S seeds, Q queries, B resamples. Scores of an arm are (S, Q); two arms are compared on the same queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from twofold.evaluate.significance import RESAMPLES, paired_randomisation

Scores = NDArray[np.float64]
POWER = 0.8
ALPHA = 0.05
TIE_LEVEL = 0.90
LEVEL = 0.95
CHUNK = 256


@dataclass(frozen=True)
class Effect:
    """What arm A gains over arm B on one measure."""

    a: float
    b: float
    """Means over seeds and queries."""
    mean: float
    low: float
    high: float
    """The 95 % interval of the difference, over seeds and queries."""
    low90: float
    high90: float
    """The 90 % interval, for ties."""
    p: float
    """Two-sided, paired randomisation over queries of the means over seeds."""
    d: float
    """Standardised: the mean difference over its standard deviation over queries (Cohen's d for pairs); 0 where nothing differs."""
    detectable: float
    """The smallest true difference that would be seen with 80 % power at .05, two-sided, by this spread over seeds and queries."""
    queries: int
    seeds: tuple[int, int]
    """How many of A and of B."""
    up: int | None = None
    """With how many seeds A's mean is higher; None where they are not in pairs."""

    @property
    def relative(self) -> float | None:
        """The difference as a share of B; None where B is 0."""
        return self.mean / self.b if self.b else None


def effect(a_SQ: Scores, b_SQ: Scores, resamples: int = RESAMPLES, seed: int = 0) -> Effect:
    """A against B. Raises ValueError where they were not measured on the same number (≥ 1) of queries."""
    if a_SQ.ndim != 2 or b_SQ.ndim != 2 or a_SQ.shape[1] != b_SQ.shape[1] or not a_SQ.size or not b_SQ.size:
        raise ValueError(f"scores are (seeds, queries) over the same queries; got shapes {a_SQ.shape} and {b_SQ.shape}")
    a_Q, b_Q = a_SQ.mean(0), b_SQ.mean(0)
    difference_Q = a_Q - b_Q
    drawn_B = hierarchical_bootstrap(a_SQ, b_SQ, resamples, seed)
    spread = float(difference_Q.std(ddof=1)) if len(difference_Q) > 1 else 0.0
    low, high = interval(drawn_B, LEVEL)
    low90, high90 = interval(drawn_B, TIE_LEVEL)
    return Effect(
        a=float(a_Q.mean()),
        b=float(b_Q.mean()),
        mean=float(difference_Q.mean()),
        low=low,
        high=high,
        low90=low90,
        high90=high90,
        p=paired_randomisation(a_Q, b_Q, resamples, seed),
        d=float(difference_Q.mean() / spread) if spread else 0.0,
        detectable=detectable(float(drawn_B.std(ddof=1))),
        queries=len(difference_Q),
        seeds=(len(a_SQ), len(b_SQ)),
        up=int((a_SQ.mean(1) > b_SQ.mean(1)).sum()) if len(a_SQ) == len(b_SQ) else None,
    )


def hierarchical_bootstrap(a_SQ: Scores, b_SQ: Scores, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.float64]:
    """(B,) mean differences of resamples that draw seeds, then queries, with replacement (Davison and Hinkley 1997, §3.8).

    Queries are crossed with seeds, so one draw of queries serves all of them. Where both arms have the same number of seeds these are
    drawn in pairs: seed s of both saw the same data in the same order.
    """
    draw = np.random.default_rng(seed)
    paired, n = len(a_SQ) == len(b_SQ), a_SQ.shape[1]
    found = []
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        count_BQ = draw.multinomial(n, np.full(n, 1 / n), size=size)
        a_BS = draw.integers(len(a_SQ), size=(size, len(a_SQ)))
        b_BS = a_BS if paired else draw.integers(len(b_SQ), size=(size, len(b_SQ)))
        means = [np.take_along_axis(count_BQ @ each.T / n, drawn, axis=1).mean(1) for each, drawn in ((a_SQ, a_BS), (b_SQ, b_BS))]
        found.append(means[0] - means[1])
    return np.concatenate(found)


def interval(drawn_B: NDArray[np.float64], level: float) -> tuple[float, float]:
    """The percentile interval of resamples."""
    tail = (1 - level) / 2
    low, high = np.quantile(drawn_B, [tail, 1 - tail])
    return float(low), float(high)


def detectable(error: float, power: float = POWER, alpha: float = ALPHA) -> float:
    """The smallest mean difference seen with `power` at two-sided `alpha`, for a difference with the standard error `error`.

    (z_{1-α/2} + z_{power}) · error, the normal approximation; 2.80 standard errors at .05 and 80 %.
    """
    return float((stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)) * error)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Holm 1979): p values that may each be compared with the family's level."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, worst = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = worst
    return adjusted


def ties(found: Effect, margin: float) -> bool:
    """Whether the 90 % interval lies inside ± `margin`: two one-sided tests at .05 (Schuirmann 1987)."""
    return -margin < found.low90 and found.high90 < margin
