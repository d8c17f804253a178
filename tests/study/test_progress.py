"""What is expected of the rest comes from what there is, kind by kind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.study.conftest import MakeStore
from twofold.study.grid import Cell
from twofold.study.progress import progress_of

ONE = Cell("made", "bert", "one", 0, lr=1e-3, sweeping=True)


def test_nothing_is_known_before_the_first(store: MakeStore) -> None:
    found = progress_of(store())
    assert (found.cells, found.cells_done, found.sweeps, found.sweeps_done, found.seconds) == (8, 0, 6, 0, None)
    assert "not known before the first" in str(found) and found.longest(ONE) == 0


def test_the_rest_is_projected(store: MakeStore) -> None:
    """Sweep runs take 100 + 10; a cell measures for 30, and trains again unless the sweep has trained it or nothing is to be trained."""
    mine = store()
    for arm in ("one", "alone", "moe"):
        for lr in (1e-3, 5e-3):
            mine.put(replace(ONE, arm=arm, lr=lr), {"criterion": lr, "seconds": {"train": 100.0, "measure": 10.0}})
    before = progress_of(mine)
    assert before.bounded and "at least" in str(before)
    mine.put(Cell("made", "bert", "one", 0, lr=5e-3), {"seconds": {"train": 0.0, "measure": 30.0}})
    found = progress_of(mine)
    seed_0 = 2 * 30 + 30  # alone and moe were trained by the sweep, mean trains nothing
    seed_1 = 3 * (100 + 30) + 30
    assert found.seconds == pytest.approx(seed_0 + seed_1) and not found.bounded and found.cells_done == 1
    assert found.longest(replace(ONE, arm="moe")) == 110 and found.longest(Cell("made", "bert", "moe", 1)) == 30


def test_only_some(store: MakeStore) -> None:
    found = progress_of(store(), ("*/moe/*",))
    assert (found.cells, found.sweeps) == (2, 2)
