"""What a pass costs is found out from passes."""

from __future__ import annotations

import random

import pytest

from twofold.serve.pace import LATE, Lateness, Pace


def test_fixed_cost_and_rate_are_found() -> None:
    pace = Pace()
    for tokens in (16, 512, 64, 256, 512, 32):
        pace.saw(tokens, 0.02 + tokens / 1000)
    assert pace.seconds(1000, passes=2) == pytest.approx(1.04)
    assert pace.tokens(0.12) == pytest.approx(100, abs=1)
    assert pace.tokens(0.01) == 0


def test_passes_of_one_size_say_only_their_rate() -> None:
    pace = Pace()
    for _ in range(5):
        pace.saw(100, 0.5)
    assert pace.seconds(200) == pytest.approx(1.0)


def test_larger_passes_that_were_faster_do_not_make_time_run_backwards() -> None:
    pace = Pace()
    pace.saw(100, 1.0)
    pace.saw(200, 0.5)
    assert 0 < pace.seconds(100) < pace.seconds(1000)


def test_a_machine_that_became_slow_is_noticed() -> None:
    pace = Pace()
    for tokens in (100, 200) * 20:
        pace.saw(tokens, tokens / 1000)
    for tokens in (100, 200) * 100:
        pace.saw(tokens, tokens / 100)
    assert pace.seconds(100) == pytest.approx(1.0, rel=0.05)


def test_estimates_are_stretched_until_few_waits_are_longer() -> None:
    late, draw = Lateness(), random.Random(0)
    for _ in range(2000):
        late.saw(2.0, 2.0 * draw.lognormvariate(0, 0.1))
    longer = sum(draw.lognormvariate(0, 0.1) > late.factor for _ in range(4000)) / 4000
    assert longer < 3 * LATE and 1.1 < late.factor < 1.5
    for _ in range(2000):
        late.saw(2.0, 1.0)
    assert late.factor == 1.0, "a machine that became fast is noticed, and nothing is promised faster than estimated"
