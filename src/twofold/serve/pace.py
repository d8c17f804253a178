"""How long a pass takes here and now: what a queue that is bounded by time has to know."""

from __future__ import annotations

import math

FORGET = 0.97
"""What a pass still counts after the next one: the machine may be busy now and idle in a minute."""
FIRST_SECONDS, FIRST_RATE = 0.01, 2000.0
"""Before anything was measured: seconds of an empty pass, tokens per second. Low, so that the first guess refuses rather than promises."""


class Pace:
    """seconds ≈ fixed + tokens / rate, fitted by least squares to the latest passes, older ones counting less."""

    def __init__(self) -> None:
        self.fixed, self.per_token = FIRST_SECONDS, 1 / FIRST_RATE
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)
        """Weighted sums over passes of 1, tokens, tokens², seconds, tokens × seconds."""

    def saw(self, tokens: int, seconds: float) -> None:
        """Learns from one pass."""
        new = (1.0, tokens, tokens * tokens, seconds, tokens * seconds)
        self._sums = tuple(FORGET * old + more for old, more in zip(self._sums, new, strict=True))  # type: ignore[assignment]
        n, t, tt, s, ts = self._sums
        spread = n * tt - t * t
        slope = (n * ts - t * s) / spread if spread > 1e-3 * n * tt else 0.0
        fixed = (s - slope * t) / n
        if slope <= 0 or fixed < 0:  # passes of one size, or noise: all of it by token
            slope, fixed = s / max(t, 1.0), 0.0
        self.fixed, self.per_token = fixed, slope

    def seconds(self, tokens: float, passes: int = 1) -> float:
        """An estimate for so many tokens in so many passes."""
        return passes * self.fixed + tokens * self.per_token

    def tokens(self, seconds: float) -> int:
        """How many tokens a pass of about that long holds."""
        return max(0, int((seconds - self.fixed) / self.per_token))


LATE, STEP = 0.02, 0.05
"""Of the waits, so many may be longer than estimated times the factor; how fast the factor follows."""
FIRST_FACTOR = 1.25
"""Before any wait was seen: what is promised in the first seconds of a rush is kept, too."""


class Lateness:
    """By how much estimated waits must be stretched so that few are longer: a quantile of actual over estimated, followed step by step
    (Robbins and Monro 1951). An estimate is a mean; what a server promises has to hold for nearly all."""

    def __init__(self) -> None:
        self.factor = FIRST_FACTOR

    def saw(self, estimated: float, actual: float) -> None:
        """Learns from one wait that was long enough to say something."""
        longer = actual > estimated * self.factor
        self.factor = max(1.0, self.factor * math.exp(STEP * (longer - LATE)))
